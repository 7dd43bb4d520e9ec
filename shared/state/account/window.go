package account

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

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
//
// By the calendar, windows shorter than a day begin at midnight and every N units from there; the last one before midnight is shorter if
// they do not fit into the day. Days and weeks are counted from Monday, 1970-01-05, months from January of the year 0.
type Window struct {
	Unit Unit
	N    int            // units in a window; 0 is 1
	Zone *time.Location // of the calendar; nil is UTC
	// Flexi: a window starts with the first request after the last one ended, instead of at a boundary of the calendar.
	Flexi bool
	// From, if set, is where counting starts, instead of at a boundary of the calendar. It has to fit, see StartFits; else 1970 is taken.
	From time.Time
}

// unitLength is how long the units are that have one length.
var unitLength = [...]time.Duration{Second: time.Second, Minute: time.Minute, Hour: time.Hour, Day: 24 * time.Hour, Week: 7 * 24 * time.Hour, Month: 30 * 24 * time.Hour}

func (w Window) n() int { return max(w.N, 1) }

// length is how long a window is, if days have 24 hours and months 30 days.
func (w Window) length() time.Duration { return unitLength[w.Unit] * time.Duration(w.n()) }

func (w Window) zone() *time.Location {
	if w.Zone == nil {
		return time.UTC
	}
	return w.Zone
}

// Bounds returns the window that now is in: from start on, and before end. A Flexi window starts now. Without a Unit both are zero.
func (w Window) Bounds(now time.Time) (start, end time.Time) {
	now = now.In(w.zone())
	switch {
	case w.Unit == None:
		return time.Time{}, time.Time{}
	case w.Flexi:
		return now, w.after(now, 1)
	case !w.From.IsZero():
		return w.counted(now)
	case w.Unit < Day:
		return w.withinDay(now)
	}
	return w.byCalendar(now)
}

// withinDay cuts a day from midnight on.
func (w Window) withinDay(now time.Time) (start, end time.Time) {
	midnight, next := civil(now, now.Day(), 0), civil(now, now.Day()+1, 0)
	start = midnight.Add(now.Sub(midnight) / w.length() * w.length())
	end = start.Add(w.length())
	if end.After(next) {
		end = next
	}
	return start, end
}

// byCalendar cuts at midnights.
func (w Window) byCalendar(now time.Time) (start, end time.Time) {
	if w.Unit == Month {
		month := floorDiv(now.Year()*12+int(now.Month())-1, w.n()) * w.n()
		first := func(month int) time.Time {
			return civil(time.Date(floorDiv(month, 12), time.Month(month-12*floorDiv(month, 12)+1), 1, 12, 0, 0, 0, w.zone()), 1, 0)
		}
		return first(month), first(month + w.n())
	}
	days := w.n()
	if w.Unit == Week {
		days *= 7
	}
	day := dayNumber(now) - 4 // day 0 is Monday, 1970-01-05
	since := day - floorDiv(day, days)*days
	return civil(now, now.Day()-since, 0), civil(now, now.Day()-since+days, 0)
}

// counted counts windows from From on, and back.
func (w Window) counted(now time.Time) (start, end time.Time) {
	from := w.From
	if !StartFits(from) {
		from = time.Unix(0, 0)
	}
	from = from.In(w.zone())
	k := w.between(from, now)
	if w.after(from, k).After(now) {
		k-- // the month or the day has begun, and not yet the time of day
	}
	return w.after(from, k), w.after(from, k+1)
}

// between is how many windows there are from one time to another, or one more: by dates for days and months, which are not all of one length.
func (w Window) between(from, to time.Time) int {
	switch w.Unit {
	case Month:
		return floorDiv(12*(to.Year()-from.Year())+int(to.Month()-from.Month()), w.n())
	case Day, Week:
		return floorDiv(dayNumber(to)-dayNumber(from), int(unitLength[w.Unit]/unitLength[Day])*w.n())
	}
	return floorDiv(int(to.Unix()-from.Unix()), int(w.length()/time.Second))
}

// dayNumber numbers the days of the calendar, from 1970-01-01 on.
func dayNumber(t time.Time) int {
	return floorDiv(int(time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).Unix()), 24*60*60)
}

// after is k windows after t. Days later it is the same time of day, months later the same day of the month or the last one.
func (w Window) after(t time.Time, k int) time.Time {
	timeOfDay := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond())
	k *= w.n()
	switch w.Unit {
	case Week:
		return civil(t, t.Day()+7*k, timeOfDay)
	case Day:
		return civil(t, t.Day()+k, timeOfDay)
	case Month:
		first := time.Date(t.Year(), t.Month()+time.Month(k), 1, 12, 0, 0, 0, t.Location())
		last := time.Date(first.Year(), first.Month()+1, 0, 12, 0, 0, 0, t.Location()).Day()
		return civil(first, min(t.Day(), last), timeOfDay)
	}
	return t.Add(time.Duration(k) * unitLength[w.Unit])
}

// civil is the time of day on a day of t's month. If the clocks skip that time it is the moment when they do: a missing 02:30 is 03:00.
func civil(t time.Time, day int, timeOfDay time.Duration) time.Time {
	const second = time.Second
	at := time.Date(t.Year(), t.Month(), day, 0, 0, int(timeOfDay/second), int(timeOfDay%second), t.Location())
	utc := time.Date(t.Year(), t.Month(), day, 0, 0, int(timeOfDay/second), int(timeOfDay%second), time.UTC)
	_, offset := at.Zone()
	switch shown := at.Add(time.Duration(offset) * second).Sub(utc); {
	case shown > 0: // it shows a later time: the clocks were set forward before
		start, _ := at.ZoneBounds()
		return start
	case shown < 0:
		_, end := at.ZoneBounds()
		return end
	}
	return at
}

func floorDiv(a, b int) int {
	if a < 0 {
		return (a+1)/b - 1
	}
	return a / b
}

// unitText are the units as Append writes them.
var unitText = [...]string{None: "-", Second: "s", Minute: "m", Hour: "h", Day: "d", Week: "w", Month: "mo"}

// Append appends the window in the form that ParseWindow reads, for messages: "1m", "3d zone=Europe/Berlin", "1mo flexi", "1d from=1700000000000" (ms).
func (w Window) Append(dst []byte) []byte {
	if w.Unit == None {
		return append(dst, unitText[None]...)
	}
	dst = strconv.AppendInt(dst, int64(w.n()), 10)
	dst = append(dst, unitText[w.Unit]...)
	if w.Zone != nil && w.Zone != time.UTC {
		dst = append(append(dst, " zone="...), w.Zone.String()...)
	}
	if w.Flexi {
		dst = append(dst, " flexi"...)
	}
	if !w.From.IsZero() {
		dst = strconv.AppendInt(append(dst, " from="...), w.From.UnixMilli(), 10)
	}
	return dst
}

// ParseWindow reads what Append wrote.
func ParseWindow(s string) (w Window, err error) {
	fields := strings.Fields(s)
	if len(fields) == 0 {
		return w, fmt.Errorf("account: window %q: empty", s)
	}
	if fields[0] != unitText[None] {
		digits := strings.TrimRight(fields[0], "abcdefghijklmnopqrstuvwxyz")
		w.N, w.Unit = parseCount(digits), unitNamed(fields[0][len(digits):])
		if w.N == 0 || w.Unit == None {
			return Window{}, fmt.Errorf("account: window %q: not a number and a unit", s)
		}
	}
	for _, field := range fields[1:] {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "flexi":
			w.Flexi = true
		case "zone":
			if w.Zone, err = time.LoadLocation(value); err != nil {
				return Window{}, fmt.Errorf("account: window %q: %w", s, err)
			}
		case "from":
			ms, err := strconv.ParseInt(value, 10, 64)
			if err != nil || ms < 0 || ms > mostFrom {
				return Window{}, fmt.Errorf("account: window %q: %q is not a time", s, value)
			}
			w.From = time.UnixMilli(ms).UTC()
		default:
			return Window{}, fmt.Errorf("account: window %q: %q is unknown", s, field)
		}
	}
	return w, nil
}

// mostUnits bounds N, so that the length of a window fits.
const mostUnits = 100_000

// mostFrom is the latest start time, in ms, in 2248: durations from and to it fit.
const mostFrom = 1 << 43

// StartFits reports whether a time can be that from which windows are counted: one in the years 1970 to 2248. Those before and after are further away than
// a time.Duration is long.
func StartFits(t time.Time) bool { return t.Unix() >= 0 && t.Unix() <= mostFrom/1000 }

// parseCount reads the number of units; 0 is a mistake.
func parseCount(s string) int {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= mostUnits && s[0] != '+' {
		return n
	}
	return 0
}

// unitNamed returns the unit of that name, or None.
func unitNamed(s string) Unit {
	switch s {
	case "s", "sec", "second", "seconds":
		return Second
	case "m", "min", "minute", "minutes":
		return Minute
	case "h", "hr", "hour", "hours", "hourly":
		return Hour
	case "d", "day", "days", "daily":
		return Day
	case "w", "wk", "week", "weeks", "weekly":
		return Week
	case "mo", "month", "months", "monthly":
		return Month
	}
	return None
}
