variable "name" {
  description = "What everything is called, and how names begin."
  type        = string
  default     = "bigpeer"
}

variable "cidr" {
  description = "The addresses of the network: a /16, cut into a public and a private /20 in each zone."
  type        = string
  default     = "10.40.0.0/16"
}

variable "zones" {
  description = "Availability zones, three of them: the log survives the loss of one."
  type        = list(string)

  validation {
    condition     = length(var.zones) == 3
    error_message = "There must be three zones: of three coordinators two are a majority wherever one is lost."
  }
}

variable "certificate_arn" {
  description = "A certificate of ACM for the name that peers connect to."
  type        = string
}

variable "clients" {
  description = "Addresses that may connect, as CIDR."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "release" {
  description = "The program, built with `--features foundationdb`: a bucket that holds it, its key there, and its SHA-256."
  type = object({
    bucket = string
    key    = string
    sha256 = string
  })
}

variable "foundationdb" {
  description = "FoundationDB's packages for el9 on x86_64, and their SHA-256; the machines and disks that it gets."
  type = object({
    server_url     = string
    server_sha256  = string
    clients_url    = string
    clients_sha256 = string
    instance_type  = optional(string, "m6i.large")
    disk_gib       = optional(number, 100)
  })
}

variable "services" {
  description = "The machines that run bigpeer, and how many: at least two, so that one can be replaced under load."
  type = object({
    instance_type = optional(string, "m6i.large")
    min           = optional(number, 2)
    max           = optional(number, 6)
    disk_gib      = optional(number, 50)
  })
  default = {}
}

variable "keep_deleted_days" {
  description = "How long the bucket keeps what bigpeer has deleted, against mistakes."
  type        = number
  default     = 7
}
