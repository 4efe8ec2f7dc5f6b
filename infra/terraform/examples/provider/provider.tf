terraform {
  required_providers {
    bigpeer = {
      source  = "bigpeer/bigpeer"
      version = "~> 0.1"
    }
  }
}

# The token comes from BIGPEER_ADMIN_TOKEN: then it is in no file.
provider "bigpeer" {
  endpoint = "https://bigpeer.example.com"
}
