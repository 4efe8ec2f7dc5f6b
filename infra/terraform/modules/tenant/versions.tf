terraform {
  required_version = ">= 1.3"
  required_providers {
    bigpeer = {
      source  = "bigpeer/bigpeer"
      version = "~> 0.1"
    }
  }
}
