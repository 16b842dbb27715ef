package config

// Of is what p points to, or the zero value: most of the configuration is
// optional, and what is missing is empty.
func Of[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// Or is *p, or def when p is nil.
func Or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}
