package quota

// Scopes says for each limit of the configuration whose accounts it has, in one line each: "trial: 5 requests per minute for each app". Products
// of the companion are not among them.
func (f *Filter) Scopes() (lines []string) {
	if f.fixed != nil {
		for _, p := range f.fixed.products {
			for _, l := range p.limits {
				lines = append(lines, f.scope(p.name, l))
			}
		}
	}
	for _, l := range f.limits {
		lines = append(lines, f.scope(l.name, l))
	}
	return lines
}

// scope is for one limit.
func (f *Filter) scope(name string, l *limit) string {
	line := name + ": " + l.words()
	for i, d := range l.per {
		line += []string{" for each ", " and "}[min(i, 1)] + dimensions[d]
	}
	if len(l.per) == 0 {
		line += " for all callers together"
	}
	if l.local || f.link == nil {
		return line + ", in each Envoy"
	}
	return line + ", in all Envoys together"
}
