resource "bigpeer_api_key" "reports" {
  app         = bigpeer_app.shop.id
  name        = "reports"
  description = "What the dashboards ask with"
  scopes      = ["changes", "data", "sql"]
  expires_at  = "2031-01-01T00:00:00Z"

  permissions {
    read {
      queries_by_collection = {
        orders = ["NOT draft"]
        prices = ["true"]
      }
    }
  }

  limits {
    sql_queries   = 2
    sql_time_secs = 30
  }
}
