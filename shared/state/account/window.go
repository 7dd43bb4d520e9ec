package account

import "time"

// Unit is a unit of time by which windows are cut.
type Unit uint8

// Units. A day is one of the calendar, with 23 or 25 hours when the clocks change; a week begins on Monday.
const (
	None Unit = iota
	Second
	Minute
	Hour
	Day
	Week
	Month
)

// Window says how an account's time is cut. The zero value has no windows: what is held counts, nothing is used up (concurrency).
type Window struct {
	Unit Unit
	N    int            // units in a window; 0 is 1
	Zone *time.Location // of the calendar; nil is UTC
	// Flexi: a window starts with the first request after the last one ended, instead of at a boundary of the calendar.
	Flexi bool
	// From, if set, is where counting starts, instead of at a boundary of the calendar.
	From time.Time
}

// Bounds returns the window that now is in: from start on, and before end. A Flexi window starts now.
func (w Window) Bounds(now time.Time) (start, end time.Time) { return now, now.Add(time.Minute) }

// ParseRate reads an amount per time: "100/min", "200k/min", "5/10s", "1M/month", "20/day", "7/h".
func ParseRate(s string) (amount int64, w Window, problem string) { return ParseDecimalRate(s, 1) }

// ParseDecimalRate reads an amount per time that may have decimals, such as "25.00/month", in units of which scale make one.
func ParseDecimalRate(s string, scale int64) (amount int64, w Window, problem string) {
	return 0, Window{}, "is not read yet"
}

// Append appends the window in the form that ParseWindow reads, for messages: "1m", "3d Europe/Berlin", "1M flexi". A From is in it, too.
func (w Window) Append(dst []byte) []byte { return dst }

// ParseWindow reads what Append wrote.
func ParseWindow(s string) (Window, error) { return Window{}, nil }
