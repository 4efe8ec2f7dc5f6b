# bigpeer itself: any number of equal machines behind one address. All state of theirs can be lost at any moment; a machine that does
# not answer `/readyz` gets nothing, and is replaced.

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "Peers and applications"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  for_each          = toset(var.clients)
  security_group_id = aws_security_group.balancer.id
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  security_group_id            = aws_security_group.balancer.id
  referenced_security_group_id = aws_security_group.services.id
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
}

resource "aws_security_group" "services" {
  name        = "${var.name}-services"
  description = "bigpeer: from the load balancer only"
  vpc_id      = aws_vpc.this.id
}

resource "aws_vpc_security_group_ingress_rule" "services" {
  security_group_id            = aws_security_group.services.id
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
}

# S3, the log, webhooks, issuers, Kafka.
resource "aws_vpc_security_group_egress_rule" "services" {
  security_group_id = aws_security_group.services.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_lb" "this" {
  name               = var.name
  load_balancer_type = "network"
  subnets            = [for subnet in aws_subnet.public : subnet.id]
  security_groups    = [aws_security_group.balancer.id]

  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = true
}

resource "aws_lb_target_group" "services" {
  name        = var.name
  vpc_id      = aws_vpc.this.id
  protocol    = "TCP"
  port        = 8080
  target_type = "instance"
  # Peers come back by themselves; requests that are under way have this long.
  deregistration_delay   = 30
  connection_termination = true

  health_check {
    protocol            = "HTTP"
    path                = "/readyz"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "tls" {
  load_balancer_arn = aws_lb.this.arn
  protocol          = "TLS"
  port              = 443
  certificate_arn   = var.certificate_arn
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  alpn_policy       = "HTTP2Preferred"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.services.arn
  }
}

resource "aws_launch_template" "services" {
  name_prefix            = "${var.name}-"
  image_id               = data.aws_ssm_parameter.image.value
  instance_type          = var.services.instance_type
  vpc_security_group_ids = [aws_security_group.services.id]
  update_default_version = true

  iam_instance_profile {
    arn = aws_iam_instance_profile.services.arn
  }

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type = "gp3"
      volume_size = var.services.disk_gib
      encrypted   = true
    }
  }

  user_data = base64encode(templatefile("${path.module}/bigpeer.sh.tftpl", {
    bucket       = aws_s3_bucket.objects.id
    prefix       = local.prefix
    region       = data.aws_region.this.name
    cluster_file = local.cluster_file
    master_key   = aws_secretsmanager_secret.master_key.arn
    release      = var.release
    packages     = var.foundationdb
    cache_mib    = floor(var.services.disk_gib * 1024 / 2)
  }))

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-services" }
  }
}

resource "aws_autoscaling_group" "services" {
  name                      = "${var.name}-services"
  min_size                  = var.services.min
  max_size                  = var.services.max
  vpc_zone_identifier       = [for subnet in aws_subnet.private : subnet.id]
  target_group_arns         = [aws_lb_target_group.services.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 300

  launch_template {
    id      = aws_launch_template.services.id
    version = aws_launch_template.services.latest_version
  }

  # A new release or setting goes round machine by machine.
  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 90
      auto_rollback          = true
    }
  }

  depends_on = [aws_instance.foundationdb, aws_volume_attachment.foundationdb, aws_iam_role_policy.services]
}

resource "aws_autoscaling_policy" "services" {
  name                   = "cpu"
  autoscaling_group_name = aws_autoscaling_group.services.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = 60
    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}
