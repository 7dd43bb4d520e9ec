package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// FaultHeader requests faults for one request: one or more of those that ParseFault accepts, comma separated.
const FaultHeader = "X-Modelsim-Fault"

// Fault is an injected failure, for one request or for the whole replica.
type Fault struct {
	Status             int           // status=503: respond with this error status
	Delay              time.Duration // delay=200ms: wait before anything else; speed does not scale it
	ResetBeforeHeaders bool          // reset-before-headers: TCP reset once the request has arrived
	ResetAfter         int           // reset-after=3: TCP reset after this many stream events (0: after the headers); -1 never
	CutBody            bool          // cut-body: close the connection halfway through the response, without an end marker
	NoUsage            bool          // no-usage: omit usage, even if it was requested
	NoCached           bool          // no-cached: no cached tokens in the usage, like vLLM without --enable-prompt-tokens-details
	Hang               bool          // hang: take a slot and never respond
	Silent             bool          // silent: take the request and never respond, without any trace in the metrics
	SilentAfterHeaders bool          // silent-after-headers: the same, but the headers of a stream are sent at once
	QueueFull          int           // queue-full=3: this many requests get 503 with SGLang's message, then the fault is over
	Metrics            string        // metrics=off (503) or metrics=hang; whole replica only
	Health             string        // health=off (503) or health=hang; whole replica only
}

var noFault = Fault{ResetAfter: -1}

// ParseFault reads a comma separated list of
//
//	status=<400..599> delay=<duration> reset-before-headers reset-after=<events> cut-body no-usage no-cached hang
//	silent silent-after-headers queue-full=<requests>
//	metrics=<off|hang> health=<off|hang>
//
// An unknown fault is an error: a test that asks for a fault must not pass because of a typo.
func ParseFault(spec string) (Fault, error) {
	f := noFault
	for _, word := range strings.Split(spec, ",") {
		word = strings.TrimSpace(word)
		name, value, hasValue := strings.Cut(word, "=")
		var err error
		switch name {
		case "status":
			if f.Status, err = strconv.Atoi(value); err == nil && (f.Status < 400 || f.Status > 599) {
				err = fmt.Errorf("must be 400 to 599")
			}
		case "delay":
			if f.Delay, err = time.ParseDuration(value); err == nil && f.Delay < 0 {
				err = fmt.Errorf("must not be negative")
			}
		case "reset-after":
			if f.ResetAfter, err = strconv.Atoi(value); err == nil && f.ResetAfter < 0 {
				err = fmt.Errorf("must not be negative")
			}
		case "silent":
			f.Silent, err = true, noValue(hasValue)
		case "silent-after-headers":
			f.SilentAfterHeaders, err = true, noValue(hasValue)
		case "queue-full":
			if f.QueueFull, err = strconv.Atoi(value); err == nil && f.QueueFull < 1 {
				err = fmt.Errorf("must be at least 1")
			}
		case "metrics":
			f.Metrics, err = value, offOrHang(value)
		case "health":
			f.Health, err = value, offOrHang(value)
		case "reset-before-headers":
			f.ResetBeforeHeaders, err = true, noValue(hasValue)
		case "cut-body":
			f.CutBody, err = true, noValue(hasValue)
		case "no-usage":
			f.NoUsage, err = true, noValue(hasValue)
		case "no-cached":
			f.NoCached, err = true, noValue(hasValue)
		case "hang":
			f.Hang, err = true, noValue(hasValue)
		default:
			err = fmt.Errorf("unknown fault")
		}
		if err != nil {
			return noFault, fmt.Errorf("fault %q: %w", word, err)
		}
	}
	return f, nil
}

func offOrHang(value string) error {
	if value != "off" && value != "hang" {
		return fmt.Errorf("must be off or hang")
	}
	return nil
}

func noValue(hasValue bool) error {
	if hasValue {
		return fmt.Errorf("takes no value")
	}
	return nil
}

// String is the form that ParseFault reads; "" for no fault.
func (f Fault) String() string {
	var words []string
	add := func(on bool, word string) {
		if on {
			words = append(words, word)
		}
	}
	add(f.Delay > 0, "delay="+f.Delay.String())
	add(f.Status > 0, "status="+strconv.Itoa(f.Status))
	add(f.ResetBeforeHeaders, "reset-before-headers")
	add(f.Hang, "hang")
	add(f.Silent, "silent")
	add(f.SilentAfterHeaders, "silent-after-headers")
	add(f.QueueFull > 0, "queue-full="+strconv.Itoa(f.QueueFull))
	add(f.ResetAfter >= 0, "reset-after="+strconv.Itoa(f.ResetAfter))
	add(f.CutBody, "cut-body")
	add(f.NoUsage, "no-usage")
	add(f.NoCached, "no-cached")
	add(f.Metrics != "", "metrics="+f.Metrics)
	add(f.Health != "", "health="+f.Health)
	return strings.Join(words, ",")
}

// with adds the faults of one request to those of the replica; if both have one, the request's applies.
func (f Fault) with(request Fault) Fault {
	if request.Status > 0 {
		f.Status = request.Status
	}
	if request.Delay > 0 {
		f.Delay = request.Delay
	}
	if request.ResetAfter >= 0 {
		f.ResetAfter = request.ResetAfter
	}
	f.ResetBeforeHeaders = f.ResetBeforeHeaders || request.ResetBeforeHeaders
	f.CutBody = f.CutBody || request.CutBody
	f.NoUsage = f.NoUsage || request.NoUsage
	f.NoCached = f.NoCached || request.NoCached
	f.Hang = f.Hang || request.Hang
	f.Silent = f.Silent || request.Silent
	f.SilentAfterHeaders = f.SilentAfterHeaders || request.SilentAfterHeaders
	if request.QueueFull > 0 {
		f.QueueFull = request.QueueFull
	}
	return f
}
