resource "bigpeer_auth_provider" "staff" {
  app   = bigpeer_app.shop.id
  name  = "staff"
  roles = [bigpeer_role.clerk.name]

  oidc {
    issuer     = "https://id.example.com"
    audiences  = ["shop"]
    claims     = { store = "https://example.com/store" }
    user_claim = "sub"
  }
}

resource "bigpeer_auth_provider" "customers" {
  app  = bigpeer_app.shop.id
  name = "customers"

  # The secret that the server makes is bigpeer_auth_provider.customers.webhook[0].secret.
  webhook {
    url = "https://example.com/login"
  }
}
