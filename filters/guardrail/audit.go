package guardrail

import (
	"github.com/inlet-proxy/inlet/shared/contract/filter"
)

// audit says what has become of the texts of one phase. It says that they were screened only after all that is to judge them has,
// so that whatever goes wrong on the way leaves it at less.
type audit uint8

const (
	unasked  audit = iota // no policy screens this phase
	skipped               // nothing was judged
	scanned               // all that went on was judged
	partial               // some of it cannot be
	failOpen              // a check failed, and what it was to judge went on all the same
)

var auditNames = [...]string{skipped: "skipped", scanned: "scanned", partial: "partial", failOpen: "fail_open"}

// auditLines are what the access log says, by the states of both phases.
var auditLines = func() (all [len(auditNames)][len(auditNames)]string) {
	for i := range all {
		for k := range all[i] {
			line := ""
			if i > 0 {
				line = "request:" + auditNames[i]
			}
			if i > 0 && k > 0 {
				line += ","
			}
			if k > 0 {
				line += "response:" + auditNames[k]
			}
			all[i][k] = line
		}
	}
	return all
}()

// less makes an audit say less than before.
func (a *audit) less(state audit) { *a = max(*a, state) }

// screened notes that all texts so far were judged, if nothing is known that was not.
func (a *audit) screened() {
	if *a == skipped {
		*a = scanned
	}
}

// tell shows the states to the access log.
func (s *state) tell(x *filter.Exchange) {
	if line := auditLines[s.audits[0]][s.audits[1]]; line != "" {
		x.Amend("screened", line)
	}
}

// recordAudits counts them.
func (f *Filter) recordAudits(s *state) {
	for i, phase := range [...]string{"request", "response"} {
		if s.audits[i] != unasked {
			f.metrics.audits.Record(1, filter.Values{phase, auditNames[s.audits[i]]})
		}
	}
}
