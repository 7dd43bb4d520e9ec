package detect

import (
	"testing"

	"github.com/inlet-proxy/inlet/internal/lines"
)

// kindsOf are the kinds of generated lines.
var kindsOf = map[string]Kind{
	"card": Card, "iban": IBAN, "email": Email, "phone": Phone, "ssn": SSN, "ip": IP, "aws": AWSKey, "github": GitHubToken, "jwt": JWT, "pem": PrivateKey,
}

// TestScore: of many generated lines nearly all are judged right.
func TestScore(t *testing.T) {
	d, _ := New(Config{Kinds: 1<<Denied - 1})
	var s Scanner
	right, missed, wrong := 0, 0, 0
	for seed := range uint64(20) {
		for _, l := range lines.Generate(seed) {
			found := d.Find(&s, []byte(l.Text))
			hit := false
			for _, f := range found {
				if k, ok := kindsOf[l.Kind]; l.Real && ok && f.Kind == k {
					hit = true
					continue
				}
				wrong++
				t.Logf("%s in %q", f.Kind, l.Text)
			}
			switch {
			case hit:
				right++
			case l.Real:
				missed++
				t.Logf("missed %s in %q", l.Kind, l.Text)
			}
		}
	}
	recall, precision := float64(right)/float64(right+missed), float64(right)/float64(right+wrong)
	t.Logf("recall %.4f, precision %.4f", recall, precision)
	if recall < 0.995 || precision < 0.995 {
		t.Errorf("recall %.4f, precision %.4f", recall, precision)
	}
}
