package wasm

import "time"

// clock tells the time with one call of the host, where time.Now asks it twice:
// for the wall clock, which is looked at from tick to tick only, and for the
// monotonic one.
type clock struct{ tick time.Time }

func (c *clock) set() { c.tick = time.Now() }

func (c *clock) now() time.Time { return c.tick.Add(time.Since(c.tick)) }
