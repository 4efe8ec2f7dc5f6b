resource "bigpeer_tenant" "acme" {
  name = "acme"
}
