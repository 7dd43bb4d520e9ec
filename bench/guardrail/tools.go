package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	gitleaks "github.com/zricethezav/gitleaks/v8/detect"
	"golang.org/x/sys/unix"

	"github.com/inlet-proxy/inlet/e2e/clients"
	"github.com/inlet-proxy/inlet/filters/guardrail/detect"
)

// kindOf are the kinds of the lines, by those of Inlet.
var kindOf = map[detect.Kind]string{
	detect.Card: "card", detect.IBAN: "iban", detect.Email: "email", detect.Phone: "phone", detect.SSN: "ssn", detect.IP: "ip",
	detect.AWSKey: "aws", detect.GitHubToken: "github", detect.JWT: "jwt", detect.PrivateKey: "pem",
}

// inlet is Inlet with all detectors.
func inlet(_ context.Context, texts, timed []string) (found [][]string, seconds []float64, err error) {
	all := detect.Set(0)
	for _, group := range detect.Groups {
		all |= group
	}
	d, wrong := detect.New(detect.Config{Kinds: all})
	if wrong != nil {
		return nil, nil, fmt.Errorf("%s", wrong.Why)
	}
	var s detect.Scanner
	for _, text := range texts {
		var kinds []string
		for _, f := range d.Find(&s, []byte(text)) {
			kinds = append(kinds, kindOf[f.Kind])
		}
		found = append(found, kinds)
	}
	for _, text := range timed {
		bytes := []byte(text)
		seconds = append(seconds, fastest(func() { d.Find(&s, bytes) }))
	}
	return found, seconds, nil
}

// leaks is gitleaks with its own rules.
func leaks(_ context.Context, texts, timed []string) (found [][]string, seconds []float64, err error) {
	d, err := gitleaks.NewDetectorDefaultConfig()
	if err != nil {
		return nil, nil, err
	}
	for _, text := range texts {
		var kinds []string
		for _, f := range d.DetectString(text) {
			kinds = append(kinds, kindOfRule(f.RuleID))
		}
		found = append(found, kinds)
	}
	for _, text := range timed {
		seconds = append(seconds, fastest(func() { d.DetectString(text) }))
	}
	return found, seconds, nil
}

// kindOfRule is the kind of a line that a rule of gitleaks finds.
func kindOfRule(id string) string {
	switch {
	case id == "private-key":
		return "pem"
	case strings.HasPrefix(id, "jwt"):
		return "jwt"
	case strings.HasPrefix(id, "aws-"):
		return "aws"
	case strings.HasPrefix(id, "github-"):
		return "github"
	}
	return id
}

// inPython is a tool that peers.py drives.
func inPython(python *clients.Runtime, name string) func(context.Context, []string, []string) ([][]string, []float64, error) {
	return func(ctx context.Context, texts, timed []string) ([][]string, []float64, error) {
		dir, err := os.MkdirTemp("", "inlet-guardrail-")
		if err != nil {
			return nil, nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		var b strings.Builder
		for _, text := range texts {
			line, err := json.Marshal(text)
			if err != nil {
				return nil, nil, err
			}
			b.Write(append(line, '\n'))
		}
		program := filepath.Join(dir, "peers.py")
		args := []string{name, filepath.Join(dir, "lines")}
		files := map[string]string{program: script, args[1]: b.String()}
		for i, text := range timed {
			path := filepath.Join(dir, fmt.Sprint("text", i))
			files[path], args = text, append(args, path)
		}
		for path, text := range files {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				return nil, nil, err
			}
		}
		cmd := python.Command(ctx, program, args...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, nil, err
		}
		var r struct {
			Found   [][]string
			Seconds []float64
		}
		if err := json.Unmarshal(out, &r); err != nil {
			return nil, nil, err
		}
		return r.Found, r.Seconds, nil
	}
}

// fastest is the least CPU time of several samples of calls, in seconds: what others do on the machine only makes it more. Each sample is
// long enough for the clock, and all of them for a quiet moment. peers.py has the same rule.
func fastest(f func()) float64 {
	const samples, least, enough = 15, 5 * time.Millisecond, time.Second
	best, whole := math.Inf(1), cpuTime()
	for k := 0; k < samples || cpuTime()-whole < enough; k++ {
		n := 0
		begin := cpuTime()
		spent := time.Duration(0)
		for spent < least {
			f()
			n++
			spent = cpuTime() - begin
		}
		best = min(best, spent.Seconds()/float64(n))
	}
	return best
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var used unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used) != nil {
		return 0
	}
	return time.Duration(used.Nano())
}
