resource "bigpeer_quota" "shop" {
  app                 = bigpeer_app.shop.id
  requests_per_second = 500
  sessions            = 2000
  storage_bytes       = 50 * pow(1024, 3)
}
