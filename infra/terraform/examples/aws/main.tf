# bigpeer on AWS: a bucket, a log in three zones, and the services behind one address.

terraform {
  required_version = ">= 1.3"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

variable "certificate_arn" {
  description = "A certificate of ACM for bigpeer.example.com."
  type        = string
}

variable "release" {
  description = "Where the program was put: bucket, key, SHA-256."
  type        = object({ bucket = string, key = string, sha256 = string })
}

variable "foundationdb" {
  description = "FoundationDB's packages of version 7.3 for el9, with the SHA-256 that its release names."
  type = object({
    server_url     = string
    server_sha256  = string
    clients_url    = string
    clients_sha256 = string
  })
}

module "bigpeer" {
  source          = "../../modules/aws"
  zones           = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  certificate_arn = var.certificate_arn
  release         = var.release
  foundationdb    = var.foundationdb
}

output "address" {
  value = module.bigpeer.address
}

output "master_key_secret" {
  value = module.bigpeer.master_key_secret
}
