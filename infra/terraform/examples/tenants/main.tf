# Three tenants with two apps each, from an empty server. `make test-terraform` applies this.

terraform {
  required_providers {
    bigpeer = {
      source  = "bigpeer/bigpeer"
      version = "~> 0.1"
    }
  }
}

# BIGPEER_ENDPOINT and BIGPEER_ADMIN_TOKEN say where and as whom.
provider "bigpeer" {}

variable "deletion_protection" {
  description = "Whether the apps are there to stay. To destroy all of it, apply false first."
  type        = bool
  default     = true
}

module "tenant" {
  source   = "../../modules/tenant"
  for_each = toset(["acme", "bolt", "crest"])
  name     = each.key

  apps = {
    shop = {
      deletion_protection = var.deletion_protection
      roles = {
        clerk = {
          read  = { collections = { orders = ["store = :claims.store", "owner = :claims.userID"] } }
          write = { collections = { orders = ["owner = :claims.userID"] } }
        }
      }
      api_keys = {
        reports = {
          read   = { everything = true }
          scopes = ["changes", "data", "sql"]
          limits = { sql_queries = 2, sql_time_secs = 30 }
        }
        loader = { write = { everything = true }, read = { everything = true } }
      }
      quota = { requests_per_second = 500, storage_bytes = 53687091200 }
    }
    fleet = {
      deletion_protection = var.deletion_protection
      quota               = { sessions = 2000 }
    }
  }
}

output "apps" {
  value = { for tenant, made in module.tenant : tenant => made.app_ids }
}

output "api_keys" {
  value     = { for tenant, made in module.tenant : tenant => made.api_keys }
  sensitive = true
}
