# A tenant with its apps, and for each app its roles, API keys and quota.

locals {
  # By "APP/NAME": a change of one app touches nothing of another.
  roles = merge([for app, is in var.apps : { for name, role in is.roles : "${app}/${name}" => merge(role, { app = app, name = name }) }]...)
  keys  = merge([for app, is in var.apps : { for name, key in is.api_keys : "${app}/${name}" => merge(key, { app = app, name = name }) }]...)
}

resource "bigpeer_tenant" "this" {
  name                = var.name
  deletion_protection = var.deletion_protection
}

resource "bigpeer_app" "this" {
  for_each            = var.apps
  tenant              = bigpeer_tenant.this.name
  name                = each.key
  deletion_protection = each.value.deletion_protection
}

resource "bigpeer_role" "this" {
  for_each = local.roles
  app      = bigpeer_app.this[each.value.app].id
  name     = each.value.name

  permissions {
    read {
      everything            = each.value.read.everything
      queries_by_collection = each.value.read.collections
    }
    write {
      everything            = each.value.write.everything
      queries_by_collection = each.value.write.collections
    }
  }
}

resource "bigpeer_api_key" "this" {
  for_each    = local.keys
  app         = bigpeer_app.this[each.value.app].id
  name        = each.value.name
  scopes      = each.value.scopes
  expires_at  = each.value.expires_at
  description = each.value.description

  permissions {
    read {
      everything            = each.value.read.everything
      queries_by_collection = each.value.read.collections
    }
    write {
      everything            = each.value.write.everything
      queries_by_collection = each.value.write.collections
    }
  }

  limits {
    sql_queries      = each.value.limits.sql_queries
    sql_time_secs    = each.value.limits.sql_time_secs
    sql_memory_bytes = each.value.limits.sql_memory_bytes
    sql_scan_bytes   = each.value.limits.sql_scan_bytes

    requests_per_second = each.value.limits.requests_per_second
  }
}

resource "bigpeer_quota" "this" {
  for_each = { for app, is in var.apps : app => is.quota if is.quota != null }
  app      = bigpeer_app.this[each.key].id

  requests_per_second     = each.value.requests_per_second
  request_burst           = each.value.request_burst
  key_requests_per_second = each.value.key_requests_per_second
  bytes_in_per_second     = each.value.bytes_in_per_second
  sessions                = each.value.sessions
  subscriptions           = each.value.subscriptions
  session_subscriptions   = each.value.session_subscriptions
  storage_bytes           = each.value.storage_bytes
  sql_queries             = each.value.sql_queries
  sql_time_secs           = each.value.sql_time_secs
  sql_memory_bytes        = each.value.sql_memory_bytes
  feed_lag_bytes          = each.value.feed_lag_bytes
}
