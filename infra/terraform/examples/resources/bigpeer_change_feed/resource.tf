resource "bigpeer_change_feed" "orders" {
  app      = bigpeer_app.shop.id
  name     = "orders"
  owner    = bigpeer_api_key.reports.name
  snapshot = true

  source {
    collection = "orders"
    query      = "total > 100"
  }

  kafka {
    brokers = "kafka-1:9092,kafka-2:9092"
    topic   = "orders"
    create {
      partitions = 6
    }
  }
}

resource "bigpeer_change_feed" "warehouse" {
  app   = bigpeer_app.shop.id
  name  = "warehouse"
  owner = bigpeer_api_key.reports.name

  webhook {
    url     = "https://example.com/hook"
    secrets = [var.warehouse_secret]
  }
}
