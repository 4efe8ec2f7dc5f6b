output "app_ids" {
  description = "The ids of the apps, by name."
  value       = { for name, app in bigpeer_app.this : name => app.id }
}

output "api_keys" {
  description = "The secrets of the API keys, by APP/NAME; null for those that were imported."
  value       = { for name, key in bigpeer_api_key.this : name => key.key }
  sensitive   = true
}
