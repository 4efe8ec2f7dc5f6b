# What machines may do. Those that run bigpeer: read and write the objects below their prefix, with the one key, and read the
# master key and the program. Those that run FoundationDB: nothing.

locals {
  prefix = "production"
}

# Its value is put there by hand, once: in Terraform's state it would be readable by everybody who reads that.
resource "aws_secretsmanager_secret" "master_key" {
  name       = "${var.name}/master-key"
  kms_key_id = aws_kms_key.this.arn
}

data "aws_iam_policy_document" "assumed_by_machines" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "services" {
  name               = "${var.name}-services"
  assume_role_policy = data.aws_iam_policy_document.assumed_by_machines.json
}

data "aws_iam_policy_document" "services" {
  statement {
    sid = "Objects"
    actions = [
      "s3:GetObject",
      "s3:PutObject",
      "s3:DeleteObject",
      "s3:AbortMultipartUpload",
    ]
    resources = ["${aws_s3_bucket.objects.arn}/${local.prefix}/*"]
  }

  statement {
    sid       = "ListObjects"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.objects.arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.prefix}/*"]
    }
  }

  statement {
    sid       = "Encryption"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.this.arn]
  }

  statement {
    sid       = "MasterKey"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.master_key.arn]
  }

  statement {
    sid       = "Release"
    actions   = ["s3:GetObject"]
    resources = ["arn:${data.aws_partition.this.partition}:s3:::${var.release.bucket}/${var.release.key}"]
  }
}

data "aws_partition" "this" {}

resource "aws_iam_role_policy" "services" {
  name   = "services"
  role   = aws_iam_role.services.id
  policy = data.aws_iam_policy_document.services.json
}

resource "aws_iam_instance_profile" "services" {
  name = "${var.name}-services"
  role = aws_iam_role.services.name
}
