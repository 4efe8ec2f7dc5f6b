output "address" {
  description = "What the name of the certificate must lead to, as an alias or CNAME."
  value       = aws_lb.this.dns_name
}

output "bucket" {
  description = "Where documents and attachments are."
  value       = aws_s3_bucket.objects.id
}

output "master_key_secret" {
  description = "The secret to put the master key into, before the first machine starts: 64 hexadecimal digits."
  value       = aws_secretsmanager_secret.master_key.arn
}

output "cluster_file" {
  description = "What FoundationDB's clients need to find the log, inside the network."
  value       = local.cluster_file
}

output "network" {
  description = "The network, its private subnets, and the group of the machines that run bigpeer: for what else is to be in there."
  value = {
    vpc             = aws_vpc.this.id
    private_subnets = [for subnet in aws_subnet.private : subnet.id]
    services        = aws_security_group.services.id
  }
}
