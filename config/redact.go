package config

// Redacted stands for a secret.
const Redacted = "[redacted]"
