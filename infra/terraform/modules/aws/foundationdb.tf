# The transaction log: one FoundationDB process in each zone, each on an address and a disk that outlive its machine. Every record
# is on two disks in two zones.

locals {
  # The same wherever it is written: a name that is new for each network, and the coordinators' addresses.
  cluster_file = format(
    "bigpeer:%s@%s",
    substr(sha256(aws_vpc.this.id), 0, 16),
    join(",", [for zone in var.zones : "${aws_network_interface.foundationdb[zone].private_ip}:4500"]),
  )
}

data "aws_ssm_parameter" "image" {
  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
}

resource "aws_security_group" "foundationdb" {
  name        = "${var.name}-foundationdb"
  description = "FoundationDB: its own processes, and bigpeer"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "foundationdb" {
  for_each = {
    itself   = aws_security_group.foundationdb.id
    services = aws_security_group.services.id
  }
  security_group_id            = aws_security_group.foundationdb.id
  referenced_security_group_id = each.value
  description                  = each.key
  ip_protocol                  = "tcp"
  from_port                    = 4500
  to_port                      = 4500
}

resource "aws_vpc_security_group_egress_rule" "foundationdb_itself" {
  security_group_id            = aws_security_group.foundationdb.id
  referenced_security_group_id = aws_security_group.foundationdb.id
  ip_protocol                  = "tcp"
  from_port                    = 4500
  to_port                      = 4500
}

# Its package, when a machine is made.
resource "aws_vpc_security_group_egress_rule" "foundationdb_packages" {
  security_group_id = aws_security_group.foundationdb.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_network_interface" "foundationdb" {
  for_each        = local.zones
  subnet_id       = aws_subnet.private[each.key].id
  security_groups = [aws_security_group.foundationdb.id]
  tags            = { Name = "${var.name}-foundationdb-${each.key}" }
}

resource "aws_ebs_volume" "foundationdb" {
  for_each          = local.zones
  availability_zone = each.key
  type              = "gp3"
  size              = var.foundationdb.disk_gib
  encrypted         = true
  kms_key_id        = aws_kms_key.this.arn
  tags              = { Name = "${var.name}-foundationdb-${each.key}" }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_volume_attachment" "foundationdb" {
  for_each    = local.zones
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.foundationdb[each.key].id
  instance_id = aws_instance.foundationdb[each.key].id
}

resource "aws_instance" "foundationdb" {
  for_each      = local.zones
  ami           = data.aws_ssm_parameter.image.value
  instance_type = var.foundationdb.instance_type
  tags          = { Name = "${var.name}-foundationdb-${each.key}" }

  network_interface {
    device_index         = 0
    network_interface_id = aws_network_interface.foundationdb[each.key].id
  }

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted = true
  }

  user_data = templatefile("${path.module}/foundationdb.sh.tftpl", {
    cluster_file = local.cluster_file
    packages     = var.foundationdb
    zone         = each.key
    volume       = replace(aws_ebs_volume.foundationdb[each.key].id, "-", "")
    is_first     = each.value == 0
  })

  # A newer image is taken when somebody replaces the machine: one at a time.
  lifecycle {
    ignore_changes = [ami]
  }
}
