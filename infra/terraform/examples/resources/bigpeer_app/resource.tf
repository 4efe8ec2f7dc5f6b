resource "bigpeer_app" "shop" {
  tenant = bigpeer_tenant.acme.name
  name   = "shop"
}
