resource "bigpeer_role" "clerk" {
  app  = bigpeer_app.shop.id
  name = "clerk"

  permissions {
    read {
      queries_by_collection = {
        orders = ["store = :claims.store", "owner = :claims.userID"]
      }
    }
    write {
      queries_by_collection = {
        orders = ["owner = :claims.userID"]
      }
    }
  }
}
