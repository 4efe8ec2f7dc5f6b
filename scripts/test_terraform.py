"""The Terraform provider and modules, by the real `terraform`, offline, against the server that `BIGPEER_BIN` names.

- tenants: three tenants with two apps each from an empty server; a second apply changes nothing; what is changed or deleted
  behind its back is seen and repaired; each resource is imported; protected apps stay; destroyed, nothing is left.
- documentation: every example of the resources' documentation, applied together; changed in place; refused when a rule is bad,
  before the server is asked; no secret is printed.
- modules: formatted and parsed; the tenant module and the examples that need only our provider applied."""

import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import hcl2

from running_server import Server
from terraform_run import INFRA, Terraform, build_provider, find_terraform

TENANTS = """
terraform {
  required_providers {
    bigpeer = {
      source = "bigpeer/bigpeer"
    }
  }
}

variable "protected" {
  type    = bool
  default = true
}

locals {
  tenants = toset(["acme", "bolt", "crest"])
  apps    = { for pair in setproduct(local.tenants, ["shop", "fleet"]) : join("/", pair) => pair }
}

resource "bigpeer_tenant" "t" {
  for_each = local.tenants
  name     = each.key
}

resource "bigpeer_app" "a" {
  for_each            = local.apps
  tenant              = bigpeer_tenant.t[each.value[0]].name
  name                = each.value[1]
  deletion_protection = var.protected
}

resource "bigpeer_role" "clerk" {
  for_each = local.apps
  app      = bigpeer_app.a[each.key].id
  name     = "clerk"
  permissions {
    read {
      queries_by_collection = { orders = ["store = :claims.store"] }
    }
  }
}

resource "bigpeer_api_key" "loader" {
  for_each = local.apps
  app      = bigpeer_app.a[each.key].id
  name     = "loader"
  permissions {
    read { everything = true }
    write { everything = true }
  }
}

resource "bigpeer_quota" "q" {
  for_each = local.apps
  app      = bigpeer_app.a[each.key].id
  sessions = 2000
}

output "apps" {
  value = { for name, app in bigpeer_app.a : name => app.id }
}

output "keys" {
  value     = { for name, key in bigpeer_api_key.loader : name => key.key }
  sensitive = true
}
"""

# What the examples of the documentation name and do not have.
BESIDES = """
variable "warehouse_secret" {
  type      = string
  sensitive = true
}

data "bigpeer_tenant" "known" {
  name = "dev"
}

data "bigpeer_app" "known" {
  tenant = data.bigpeer_tenant.known.name
  name   = "dev"
}

output "known" {
  value = data.bigpeer_app.known.id
}
"""


def check(what, holds):
    if not holds:
        sys.exit(f"{what}: no")


def say(text):
    print(f"test_terraform: {text}", flush=True)


class Admin:
    """The admin API, as somebody else uses it."""

    def __init__(self, server):
        self.server = server

    def ask(self, method, path, body=None):
        """The status and the answer."""
        headers = {"Authorization": f"Bearer {self.server.credentials['admin_token']}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.server.url}/admin/v1/{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def get(self, path):
        status, answer = self.ask("GET", path)
        check(f"{path} is there ({status}: {answer})", status == 200)
        return answer

    def is_gone(self, path):
        return self.ask("GET", path)[0] == 404


def asks_before_destroying(terraform):
    """Whether this terraform asks a provider before it plans to destroy something."""
    return terraform.version() >= (1, 3)


def tenants(terraform, server, folder):
    """Three tenants with two apps each."""
    admin = Admin(server)
    (folder / "main.tf").write_text(TENANTS)
    terraform = terraform.at(folder)
    terraform.init()
    planned = terraform.plan()
    check(f"3 + 6 * 4 resources are planned ({len(planned)})", len(planned) == 27)
    terraform.run("apply", "-no-color", "plan")
    apps, keys = terraform.output("apps"), terraform.output("keys")
    check("six apps of their own", len(set(apps.values())) == 6)
    for place, app in apps.items():
        tenant, name = place.split("/")
        check(f"{place} is there", admin.get(f"tenants/{tenant}/apps/{name}")["id"] == app)
        statement = {"statement": "INSERT INTO orders DOCUMENTS (:order)", "args": {"order": {"_id": place}}}
        server.post(f"/{app}/api/v5/store/execute", statement, keys[place])
    check("a second plan changes nothing", terraform.plan() == {})
    terraform.apply()
    check("a second apply changes nothing", "0 added, 0 changed, 0 destroyed" in terraform.spoken[-1])
    say("three tenants with two apps each; a second apply changed nothing")

    shop, fleet = apps["acme/shop"], apps["bolt/fleet"]
    admin.ask("PUT", f"apps/{shop}/roles/clerk", {"permissions": {"qlVersion": 1, "write": {"everything": True}}})
    admin.ask("PUT", f"apps/{shop}/quota", {"sessions": 1})
    admin.ask("PUT", "tenants/crest", {"deletion_protection": True})
    admin.ask("DELETE", f"apps/{fleet}/api-keys/loader")
    drifted = {
        'bigpeer_role.clerk["acme/shop"]': ["update"],
        'bigpeer_quota.q["acme/shop"]': ["update"],
        'bigpeer_tenant.t["crest"]': ["update"],
        'bigpeer_api_key.loader["bolt/fleet"]': ["create"],
    }
    seen = terraform.plan()
    check(f"what was changed behind its back is seen ({seen})", seen == drifted)
    terraform.apply()
    role = admin.get(f"apps/{shop}/roles/clerk")["permissions"]
    check("the role is as it was", role["read"]["queriesByCollection"] == {"orders": ["store = :claims.store"]})
    check("the role does not write", role["write"]["everything"] is False)
    check("the key is there again", admin.get(f"apps/{fleet}/api-keys/loader")["permissions"]["write"]["everything"])
    check("and no other drift", terraform.plan() == {})
    say("what was changed behind its back was seen and repaired")

    for address, place in [
        ('bigpeer_tenant.t["acme"]', "acme"),
        ('bigpeer_app.a["acme/shop"]', "acme/shop"),
        ('bigpeer_role.clerk["acme/shop"]', f"{shop}/clerk"),
        ('bigpeer_api_key.loader["acme/shop"]', f"{shop}/loader"),
        ('bigpeer_quota.q["acme/shop"]', shop),
    ]:
        terraform.run("state", "rm", address)
        terraform.run("import", "-no-color", address, place)
    check("what was imported is what is there", terraform.plan() == {})
    terraform.run("state", "rm", 'bigpeer_role.clerk["acme/shop"]')
    said = terraform.run("apply", "-no-color", "-auto-approve", fails=True)
    check(f"what is there is not taken over without being told ({said})", "is already there" in said)
    for bad, why in [("clerk", "is imported as <app>/<name>"), ("no id!/clerk", "the id of an app"), (f"{shop}/nobody", "non-existent")]:
        said = terraform.run("import", "-no-color", 'bigpeer_role.clerk["acme/shop"]', bad, fails=True)
        check(f"'{bad}' is not imported ({said})", why in said)
    terraform.run("import", "-no-color", 'bigpeer_role.clerk["acme/shop"]', f"{shop}/clerk")
    say("every resource was imported")

    if asks_before_destroying(terraform):
        said = terraform.run("plan", "-no-color", "-destroy", fails=True)
        check(f"protected apps stay ({said})", "is protected from deletion" in said)
    status, answer = admin.ask("DELETE", "tenants/acme/apps/shop")
    check(f"the server protects them, too ({answer})", status == 409)
    terraform.apply("-var=protected=false")
    terraform.run("destroy", "-no-color", "-auto-approve", "-var=protected=false")
    for place, app in apps.items():
        tenant, name = place.split("/")
        check(f"{place} is gone", admin.is_gone(f"tenants/{tenant}/apps/{name}") and admin.is_gone(f"tenants/{tenant}"))
        check(f"what was in {place} is gone", admin.is_gone(f"apps/{app}/api-keys/loader"))
    said = "".join(terraform.spoken)
    check("no secret is printed", not any(key in said for key in [*keys.values(), server.credentials["admin_token"]]))
    say("protected apps stayed; destroyed, nothing is left")


def documentation(terraform, server, folder):
    """Every example of the documentation, in one configuration."""
    admin = Admin(server)
    examples = sorted((INFRA / "examples/resources").glob("*/resource.tf"))
    for example in examples:
        shutil.copy(example, folder / f"{example.parent.name}.tf")
    provider = (INFRA / "examples/provider/provider.tf").read_text()
    (folder / "provider.tf").write_text(re.sub(r"(?m)^ *endpoint .*\n", "", provider))
    (folder / "besides.tf").write_text(BESIDES)
    secret = "a secret that nobody is told"
    terraform = terraform.at(folder, TF_VAR_warehouse_secret=secret)
    terraform.init()
    terraform.apply()
    check("an example changes nothing when it is applied again", terraform.plan() == {})
    check("data sources find what others made", terraform.output("known") == server.credentials["app"])
    app = terraform.state("bigpeer_app.shop")["id"]
    spec = admin.get(f"apps/{app}/feeds/orders")["spec"]
    check(f"the feed is there ({spec})", spec["sink"]["topic"] == "orders" and spec["sources"][0]["query"] == "total > 100")

    key = folder / "bigpeer_api_key.tf"
    before, text = terraform.state("bigpeer_api_key.reports"), key.read_text()
    key.write_text(text.replace("sql_queries   = 2", "sql_queries   = 3"))
    check("a change in place is one", terraform.plan() == {"bigpeer_api_key.reports": ["update"]})
    terraform.apply()
    after = terraform.state("bigpeer_api_key.reports")
    check("a key that is changed keeps its secret", after["key"] == before["key"] and after["key"])
    check("the limit is changed", admin.get(f"apps/{app}/api-keys/reports")["limits"]["sql_queries"] == 3)

    for good, bad, why in [
        ("NOT draft", "NOT = draft", "the rule 'NOT = draft' for 'orders' is not a DQL condition"),
        ('name        = "reports"', 'name        = "re/ports"', "is not a name"),
        ("2031-01-01T00:00:00Z", "some day", "is not a time"),
    ]:
        key.write_text(text.replace(good, bad))
        said = terraform.run("plan", "-no-color", fails=True)
        check(f"'{bad}' is refused when a plan is made ({said})", why in said)
        check("without asking the server", why in terraform.run("validate", "-no-color", fails=True))
    key.write_text(text)

    made = terraform.state("bigpeer_auth_provider.customers")["webhook"][0]["secret"]
    for resource, place in [
        ("bigpeer_auth_provider.staff", f"{app}/staff"),
        ("bigpeer_auth_provider.customers", f"{app}/customers"),
        ("bigpeer_change_feed.orders", f"{app}/orders"),
        ("bigpeer_change_feed.warehouse", f"{app}/warehouse"),
    ]:
        terraform.run("state", "rm", resource)
        terraform.run("import", "-no-color", resource, place)
    # What is hidden cannot be compared: it is sent once more.
    seen = terraform.plan()
    expected = {"bigpeer_api_key.reports": ["update"], "bigpeer_change_feed.warehouse": ["update"]}
    check(f"what was imported is what is there, but for secrets ({seen})", seen == expected)
    terraform.apply()
    check("and then all is as it should be", terraform.plan() == {})

    if asks_before_destroying(terraform):
        said = terraform.run("destroy", "-no-color", "-auto-approve", fails=True)
        check("the example's app is protected", "is protected from deletion" in said)
    shop = folder / "bigpeer_app.tf"
    shop.write_text(shop.read_text().replace('"shop"\n}', '"shop"\n  deletion_protection = false\n}'))
    terraform.apply()
    terraform.run("destroy", "-no-color", "-auto-approve")
    check("nothing is left", admin.is_gone("tenants/acme"))
    said = "".join(terraform.spoken)
    check("no secret is printed", not any(one in said for one in [before["key"], made, secret]))
    say(f"{len(examples)} examples of the documentation applied, changed, imported, destroyed; bad rules refused by the plan")


def wrong_server(terraform, server, folder):
    """Who asks somebody else, or as nobody, is told so, and loses nothing."""
    (folder / "main.tf").write_text(TENANTS)
    terraform = terraform.at(folder)
    terraform.init()
    for environment, why in [
        ({"BIGPEER_ADMIN_TOKEN": "wrong"}, "HTTP 401"),
        ({"BIGPEER_ADMIN_TOKEN": ""}, "The provider needs 'token'"),
        ({"BIGPEER_ENDPOINT": "ftp://x"}, "must be http://"),
    ]:
        said = terraform.at(folder, **environment).run("apply", "-no-color", "-auto-approve", "-target=bigpeer_tenant.t", fails=True)
        check(f"{environment}: {why} ({said})", why in said)
    check("nothing was made", Admin(server).is_gone("tenants/acme"))
    say("wrong tokens and endpoints are said to be wrong")


def parse_modules(terraform):
    """Everything is formatted, parses, and names only what is there."""
    terraform.at(INFRA).run("fmt", "-check", "-recursive", ".")
    folders = sorted({file.parent for file in INFRA.rglob("*.tf") if ".terraform" not in file.parts})
    for folder in folders:
        declared, text = {"var": set(), "local": set()}, ""
        for file in sorted(folder.glob("*.tf")):
            content = hcl2.loads(file.read_text())
            text += re.sub(r"(?m)#.*$", "", file.read_text())
            declared["var"] |= {name.strip('"') for block in content.get("variable", []) for name in block if not name.startswith("__")}
            declared["local"] |= {name for block in content.get("locals", []) for name in block if not name.startswith("__")}
        for kind, names in declared.items():
            used = set(re.findall(rf"(?<![\w.]){kind}\.(\w+)", text))
            # The examples of single resources are parts of one configuration.
            if "resources" not in folder.parts:
                check(f"{folder}: {kind}s that are used are declared ({used - names})", used <= names)
                check(f"{folder}: {kind}s that are declared are used ({names - used})", names <= used)
        resources = set(re.findall(r'(?m)^resource "(\w+)" "(\w+)"', text))
        data = set(re.findall(r'(?m)^data "(\w+)" "(\w+)"', text))
        for kind, name in re.findall(r"(?<![\w.])((?:aws|bigpeer)_\w+)\.(\w+)", text):
            if "resources" not in folder.parts:
                check(f"{folder}: {kind}.{name} is there", (kind, name) in resources)
        for kind, name in re.findall(r"(?<![\w.])data\.(\w+)\.(\w+)", text):
            check(f"{folder}: data.{kind}.{name} is there", (kind, name) in data)
    shell_templates(terraform)
    say(f"{len(folders)} folders are formatted, parse, and name only what is there")


def shell_templates(terraform):
    """What machines run when they are made is shell, whatever is filled in."""
    aws = INFRA / "modules/aws"
    for template in aws.glob("*.sh.tftpl"):
        text = template.read_text()
        nested = {}
        for name in re.findall(r"\$\{([\w.]+)\}", text):
            top, _, inner = name.partition(".")
            nested.setdefault(top, {}).update({inner: "x"} if inner else {})
        values = {top: inner or "x" for top, inner in nested.items()} | {"is_first": True}
        expression = f"base64encode(templatefile({json.dumps(str(template))}, jsondecode({json.dumps(json.dumps(values))})))"
        said = terraform.run("console", given=expression + "\n")
        shell = base64.b64decode(said.strip().strip('"'))
        done = subprocess.run(["bash", "-n"], input=shell, capture_output=True)
        check(f"{template.name} is shell ({done.stderr.decode()})", done.returncode == 0 and len(shell) > 500)


def modules(terraform, server, folder):
    """The tenant module, by its example."""
    # Without optional attributes of variables.
    if terraform.version() < (1, 3):
        say("the tenant module needs terraform 1.3, and was only parsed")
        return
    shutil.copytree(INFRA / "modules/tenant", folder / "modules/tenant")
    shutil.copytree(INFRA / "examples/tenants", folder / "examples/tenants")
    terraform = terraform.at(folder / "examples/tenants")
    terraform.init()
    terraform.apply()
    apps = terraform.output("apps")
    check(f"three tenants with two apps each ({apps})", sorted(map(len, apps.values())) == [2, 2, 2])
    check("a second apply of the module changes nothing", terraform.plan() == {})
    terraform.apply("-var=deletion_protection=false")
    terraform.run("destroy", "-no-color", "-auto-approve", "-var=deletion_protection=false")
    check("nothing of the module is left", all(Admin(server).is_gone(f"tenants/{tenant}") for tenant in apps))
    say("the tenant module applied and destroyed")


def main():
    program, provider = find_terraform(), build_provider()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        plain = Terraform.with_mirror(program, provider, place)
        version = ".".join(map(str, plain.version()))
        parse_modules(plain)
        with Server(place / "server") as server:
            credentials = {"BIGPEER_ENDPOINT": server.url, "BIGPEER_ADMIN_TOKEN": server.credentials["admin_token"]}
            terraform = plain.at(place, **credentials)
            for story in (tenants, documentation, modules, wrong_server):
                folder = place / story.__name__
                folder.mkdir()
                story(terraform, server, folder)
    say(f"all is well, with terraform {version}")


if __name__ == "__main__":
    main()
