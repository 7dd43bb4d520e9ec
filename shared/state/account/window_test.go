package account_test

import (
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/inlet-proxy/inlet/shared/state/account"
)

func zone(t require.TestingT, name string) *time.Location {
	z, err := time.LoadLocation(name)
	require.NoError(t, err)
	return z
}

func TestBounds(t *testing.T) {
	berlin, beirut, lordHowe := zone(t, "Europe/Berlin"), zone(t, "Asia/Beirut"), zone(t, "Australia/Lord_Howe")
	at := func(s string, z *time.Location) time.Time {
		at, err := time.ParseInLocation("2006-01-02 15:04:05.999", s, z)
		require.NoError(t, err)
		return at
	}
	utc := time.UTC
	for _, test := range []struct {
		name            string
		w               account.Window
		now, start, end time.Time
	}{
		{"a minute", account.Window{Unit: account.Minute}, at("2026-11-30 12:01:02.5", utc), at("2026-11-30 12:01:00", utc), at("2026-11-30 12:02:00", utc)},
		{"its first moment", account.Window{Unit: account.Minute}, at("2026-11-30 12:01:00", utc), at("2026-11-30 12:01:00", utc), at("2026-11-30 12:02:00", utc)},
		{"ten seconds", account.Window{Unit: account.Second, N: 10}, at("2026-11-30 12:01:59", utc), at("2026-11-30 12:01:50", utc), at("2026-11-30 12:02:00", utc)},
		{"seven hours, cut at midnight", account.Window{Unit: account.Hour, N: 7}, at("2026-11-30 22:00:00", utc), at("2026-11-30 21:00:00", utc), at("2026-12-01 00:00:00", utc)},
		{"an hour of India", account.Window{Unit: account.Hour, Zone: zone(t, "Asia/Kolkata")}, at("2026-11-30 12:00:00", utc), at("2026-11-30 11:30:00", utc), at("2026-11-30 12:30:00", utc)},
		{"a day", account.Window{Unit: account.Day}, at("2026-11-30 23:59:59.999", utc), at("2026-11-30 00:00:00", utc), at("2026-12-01 00:00:00", utc)},
		{"a day of 25 hours", account.Window{Unit: account.Day, Zone: berlin}, at("2026-10-25 12:00:00", berlin), at("2026-10-24 22:00:00", utc), at("2026-10-25 23:00:00", utc)},
		{"a day of 23 hours", account.Window{Unit: account.Day, Zone: berlin}, at("2026-03-29 12:00:00", berlin), at("2026-03-28 23:00:00", utc), at("2026-03-29 22:00:00", utc)},
		{"the last hour of 25", account.Window{Unit: account.Hour, N: 6, Zone: berlin}, at("2026-10-25 23:30:00", berlin), at("2026-10-25 23:00:00", berlin), at("2026-10-26 00:00:00", berlin)},
		{"a day without a midnight", account.Window{Unit: account.Day, Zone: beirut}, at("2024-03-31 12:00:00", beirut), at("2024-03-30 22:00:00", utc), at("2024-03-31 21:00:00", utc)},
		{"clocks that change by half an hour", account.Window{Unit: account.Day, Zone: lordHowe}, at("2026-04-05 12:00:00", lordHowe), at("2026-04-04 13:00:00", utc), at("2026-04-05 13:30:00", utc)},
		{"a week from Monday", account.Window{Unit: account.Week}, at("2026-11-29 12:00:00", utc), at("2026-11-23 00:00:00", utc), at("2026-11-30 00:00:00", utc)},
		{"a week on Monday", account.Window{Unit: account.Week}, at("2026-11-30 00:00:00", utc), at("2026-11-30 00:00:00", utc), at("2026-12-07 00:00:00", utc)},
		{"before 1970", account.Window{Unit: account.Week}, at("1969-12-30 12:00:00", utc), at("1969-12-29 00:00:00", utc), at("1970-01-05 00:00:00", utc)},
		{"a month", account.Window{Unit: account.Month}, at("2026-02-28 12:00:00", utc), at("2026-02-01 00:00:00", utc), at("2026-03-01 00:00:00", utc)},
		{"a quarter", account.Window{Unit: account.Month, N: 3}, at("2026-12-31 12:00:00", utc), at("2026-10-01 00:00:00", utc), at("2027-01-01 00:00:00", utc)},
		{"a month of California", account.Window{Unit: account.Month, Zone: zone(t, "America/Los_Angeles")}, at("2026-12-01 07:59:59", utc), at("2026-11-01 07:00:00", utc), at("2026-12-01 08:00:00", utc)},
		{"flexi", account.Window{Unit: account.Hour, Flexi: true}, at("2026-11-30 12:34:56", utc), at("2026-11-30 12:34:56", utc), at("2026-11-30 13:34:56", utc)},
		{"a flexi month from the 31st", account.Window{Unit: account.Month, Flexi: true}, at("2026-01-31 12:00:00", utc), at("2026-01-31 12:00:00", utc), at("2026-02-28 12:00:00", utc)},
		{"daily at 13:40", account.Window{Unit: account.Day, From: at("2026-01-01 13:40:00", utc)}, at("2026-11-30 13:39:59", utc), at("2026-11-29 13:40:00", utc), at("2026-11-30 13:40:00", utc)},
		{"daily at 13:40, at 13:40", account.Window{Unit: account.Day, From: at("2026-01-01 13:40:00", utc)}, at("2026-11-30 13:40:00", utc), at("2026-11-30 13:40:00", utc), at("2026-12-01 13:40:00", utc)},
		{"daily at 02:30, which is missing", account.Window{Unit: account.Day, Zone: berlin, From: at("2026-01-01 02:30:00", berlin)}, at("2026-03-29 12:00:00", berlin), at("2026-03-29 03:00:00", berlin), at("2026-03-30 02:30:00", berlin)},
		{"just before it", account.Window{Unit: account.Day, Zone: berlin, From: at("2026-01-01 02:30:00", berlin)}, at("2026-03-29 01:59:59", berlin), at("2026-03-28 02:30:00", berlin), at("2026-03-29 03:00:00", berlin)},
		{"monthly from the 31st, in February", account.Window{Unit: account.Month, From: at("2026-01-31 10:00:00", utc)}, at("2026-03-01 00:00:00", utc), at("2026-02-28 10:00:00", utc), at("2026-03-31 10:00:00", utc)},
		{"monthly from the 31st, in a leap year", account.Window{Unit: account.Month, From: at("2026-01-31 10:00:00", utc)}, at("2028-02-29 10:00:00", utc), at("2028-02-29 10:00:00", utc), at("2028-03-31 10:00:00", utc)},
		{"before the start time", account.Window{Unit: account.Month, From: at("2026-01-31 10:00:00", utc)}, at("2025-12-31 09:00:00", utc), at("2025-11-30 10:00:00", utc), at("2025-12-31 10:00:00", utc)},
		{"hours from a start time", account.Window{Unit: account.Hour, N: 5, From: at("2026-01-01 00:10:00", utc)}, at("2026-01-01 05:09:59", utc), at("2026-01-01 00:10:00", utc), at("2026-01-01 05:10:00", utc)},
	} {
		t.Run(test.name, func(t *testing.T) {
			start, end := test.w.Bounds(test.now)
			require.True(t, start.Equal(test.start), "start %s, not %s", start, test.start)
			require.True(t, end.Equal(test.end), "end %s, not %s", end, test.end)
		})
	}
	start, end := account.Window{}.Bounds(time.Now())
	require.True(t, start.IsZero() && end.IsZero())
}

// Windows follow each other without a gap, each moment is in the one that it is said to be in, and the form for messages reads back.
func TestWindowsFollowEachOther(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Beirut", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo", "Pacific/Apia"}
	rapid.Check(t, func(t *rapid.T) {
		w := account.Window{
			Unit: account.Unit(rapid.IntRange(int(account.Second), int(account.Month)).Draw(t, "unit")),
			N:    rapid.IntRange(1, 40).Draw(t, "n"),
			Zone: zone(t, rapid.SampledFrom(zones).Draw(t, "zone")),
		}
		if rapid.Bool().Draw(t, "counted") {
			w.From = time.UnixMilli(rapid.Int64Range(0, 2e12).Draw(t, "from")).UTC()
		}
		now := time.UnixMilli(rapid.Int64Range(1e12, 2e12).Draw(t, "now"))
		read, err := account.ParseWindow(string(w.Append(nil)))
		require.NoError(t, err)
		for range 4 {
			start, end := w.Bounds(now)
			require.False(t, start.After(now))
			require.True(t, end.After(now))
			again, _ := w.Bounds(start)
			require.True(t, again.Equal(start), "%s: the window of %s starts %s", w.Append(nil), start, again)
			again, _ = w.Bounds(end.Add(-1))
			require.True(t, again.Equal(start), "%s: the window of %s starts %s, not %s", w.Append(nil), end.Add(-1), again, start)
			again, _ = read.Bounds(now)
			require.True(t, again.Equal(start))
			now = end
		}
	})
}

// Start times that are far away cost no more than others, and those that do not fit are not taken: a worker must not count windows one by one.
func TestStartsFarAway(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 250_000_000, time.UTC)
	for _, from := range []time.Time{
		time.Date(2, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(2249, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
	} {
		require.False(t, account.StartFits(from))
		w := account.Window{Unit: account.Second, From: from}
		start, end := w.Bounds(now)
		require.Equal(t, now.Truncate(time.Second), start.UTC())
		require.Equal(t, now.Truncate(time.Second).Add(time.Second), end.UTC())
	}
	for _, from := range []time.Time{time.Unix(0, 500_000_000), time.Date(2248, 6, 1, 10, 0, 0, 500_000_000, zone(t, "Europe/Berlin"))} {
		require.True(t, account.StartFits(from))
		start, _ := account.Window{Unit: account.Second, From: from}.Bounds(now)
		require.Equal(t, time.Date(2026, 11, 30, 11, 59, 59, 500_000_000, time.UTC), start.UTC())
		start, end := account.Window{Unit: account.Second, N: 7, From: from}.Bounds(now)
		require.Zero(t, start.Sub(from)%(7*time.Second))
		require.Equal(t, 7*time.Second, end.Sub(start))
		require.False(t, start.After(now) || !end.After(now))
	}
}

func TestParseWindow(t *testing.T) {
	for _, text := range []string{"-", "1m", "10s", "3d zone=Europe/Berlin", "1mo flexi", "2w from=1700000000000", "1h zone=Asia/Beirut flexi"} {
		w, err := account.ParseWindow(text)
		require.NoError(t, err)
		require.Equal(t, text, string(w.Append(nil)))
	}
	for _, text := range []string{"", "m", "0m", "-1m", "+1m", "1", "1x", "100001s", "1m zone=Nowhere/Atall", "1m from=x", "1m from=-1", "1s from=9223372036854775807", "1m what"} {
		_, err := account.ParseWindow(text)
		require.Error(t, err, text)
	}
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]struct {
		amount int64
		window string
	}{
		"100/min": {100, "1m"}, "200k/min": {200_000, "1m"}, "5/10s": {5, "10s"}, "1M/month": {1_000_000, "1mo"}, "20/day": {20, "1d"}, "20/daily": {20, "1d"},
		"20/1d": {20, "1d"}, "7/h": {7, "1h"}, "0/s": {0, "1s"}, "2.5k/week": {2500, "1w"}, " 3 / 2 weeks": {3, "2w"}, "1G/mo": {1_000_000_000, "1mo"}, "7.0/s": {7, "1s"},
		"1152921504606846976/s": {account.Most, "1s"},
	} {
		amount, w, problem := account.ParseDecimalRate(text, 1)
		require.Empty(t, problem, text)
		require.Equal(t, want.amount, amount, text)
		require.Equal(t, want.window, string(w.Append(nil)), text)
	}
	for _, text := range []string{
		"", "100", "/min", "100/", "100/0s", "100/x", "-1/s", "+1/s", "1.5/s", "1./s", ".5k/s", "1e3/s", "1 000/s", "k/s", "1kk/s", "1.0005k/s", "0x10/s", "1/-5s",
		"1152921504606846977/s", "99999999999999999999/s", "2000000000G/s", "1/m/s",
	} {
		amount, _, problem := account.ParseDecimalRate(text, 1)
		require.NotEmpty(t, problem, text)
		require.Zero(t, amount, text)
	}
	amount, _, problem := account.ParseDecimalRate("25.000000001/month", 1_000_000_000)
	require.Empty(t, problem)
	require.EqualValues(t, 25_000_000_001, amount)
	_, _, problem = account.ParseDecimalRate("25.0000000001/month", 1_000_000_000)
	require.NotEmpty(t, problem)
	_, _, problem = account.ParseDecimalRate("1G/month", 1<<59)
	require.NotEmpty(t, problem)
}
