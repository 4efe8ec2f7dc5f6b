variable "name" {
  description = "What the tenant is called."
  type        = string
}

variable "deletion_protection" {
  description = "Whether the tenant is there to stay until this is false."
  type        = bool
  default     = false
}

variable "apps" {
  description = <<-EOT
    The tenant's apps, by name. An app that does not say otherwise is protected from deletion. `roles` and `api_keys` are by
    name, too; what they may read and write is `everything`, or per collection conditions in DQL of which one must hold.
  EOT
  type = map(object({
    deletion_protection = optional(bool, true)

    roles = optional(map(object({
      read  = optional(object({ everything = optional(bool), collections = optional(map(list(string))) }), {})
      write = optional(object({ everything = optional(bool), collections = optional(map(list(string))) }), {})
    })), {})

    api_keys = optional(map(object({
      read        = optional(object({ everything = optional(bool), collections = optional(map(list(string))) }), {})
      write       = optional(object({ everything = optional(bool), collections = optional(map(list(string))) }), {})
      scopes      = optional(set(string))
      expires_at  = optional(string)
      description = optional(string)
      limits = optional(object({
        sql_queries      = optional(number)
        sql_time_secs    = optional(number)
        sql_memory_bytes = optional(number)
        sql_scan_bytes   = optional(number)

        requests_per_second = optional(number)
      }), {})
    })), {})

    quota = optional(object({
      requests_per_second     = optional(number)
      request_burst           = optional(number)
      key_requests_per_second = optional(number)
      bytes_in_per_second     = optional(number)
      sessions                = optional(number)
      subscriptions           = optional(number)
      session_subscriptions   = optional(number)
      storage_bytes           = optional(number)
      sql_queries             = optional(number)
      sql_time_secs           = optional(number)
      sql_memory_bytes        = optional(number)
      feed_lag_bytes          = optional(number)
    }))
  }))
  default = {}
}
