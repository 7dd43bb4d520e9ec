package account

import (
	"math"
	"strconv"
	"strings"
)

// Most is the largest limit and the largest amount. Larger ones are taken for this one, so that sums of a few of them cannot overflow.
const Most = int64(1) << 60

// ParseDecimalRate reads an amount per time, such as "100/min", "200k/min", "5/10s" or "25.00/month", in units of which scale make one. What is
// not a whole number of units is a problem, and never rounded.
func ParseDecimalRate(s string, scale int64) (amount int64, w Window, problem string) {
	const form = `is not an amount per time, such as "100/min", "200k/min", "5/10s" or "20/day"`
	number, per, ok := strings.Cut(s, "/")
	if !ok {
		return 0, w, form
	}
	number, per = strings.TrimSpace(number), strings.TrimSpace(per)
	unit := strings.TrimLeft(per, "0123456789")
	w.N = 1
	if digits := per[:len(per)-len(unit)]; digits != "" {
		w.N = parseCount(digits)
	}
	w.Unit = unitNamed(strings.TrimSpace(unit))
	if w.N == 0 || w.Unit == None {
		return 0, Window{}, form
	}
	if amount, problem = parseAmount(number, scale); problem != "" {
		return 0, Window{}, problem
	}
	return amount, w, ""
}

// parseAmount reads a decimal number with k, M or G behind it.
func parseAmount(s string, scale int64) (amount int64, problem string) {
	const form, large = `has no amount before the "/", such as 100, 200k, 1M or 2.5k`, "is too large"
	factor := int64(1)
	switch {
	case strings.HasSuffix(s, "k"):
		factor = 1e3
	case strings.HasSuffix(s, "M"):
		factor = 1e6
	case strings.HasSuffix(s, "G"):
		factor = 1e9
	}
	if factor > 1 {
		s = s[:len(s)-1]
	} else if n := len(s); n > 1 && strings.ContainsRune("Kmg", rune(s[n-1])) {
		return 0, `has an amount that ends in "` + s[n-1:] + `"; write k for thousands, M for millions, G for billions`
	}
	if scale > Most/factor {
		return 0, large
	}
	factor *= scale
	whole, fraction, point := strings.Cut(s, ".")
	if whole == "" || strings.Trim(whole+fraction, "0123456789") != "" || point && fraction == "" {
		return 0, form
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > Most/factor {
		return 0, large
	}
	amount = n * factor
	for _, digit := range []byte(strings.TrimRight(fraction, "0")) {
		if factor%10 != 0 {
			return 0, "has more decimals than can be counted"
		}
		factor /= 10
		amount += int64(digit-'0') * factor
	}
	return min(amount, Most), ""
}

// clamp brings an amount into 0 to Most.
func clamp(n int64) int64 { return min(max(n, 0), Most) }

// mul multiplies without overflow.
func mul(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/2/a {
		return math.MaxInt64 / 2
	}
	return a * b
}
