// Package account counts what callers use: requests, tokens, money and open requests, against limits for windows of time.
//
// An account is one counter: a limit for one combination of values, such as "product trial, application a, total tokens a minute". A [Demand] is what one
// request wants of one account. A [Table] keeps the accounts and decides:
//
//	r := table.Take(now, demands, hold)      // all of them, or none
//	table.Settle(now, demands, used)         // what was really used, once the response is over
//	table.Refund(now, demands)               // instead: as if the request had never been
//
// # Numbers
//
// All amounts are integers from 0 to [Most], in units of the caller's choice: requests, tokens, billionths of a currency. A demand is
// admitted if used + held + amount <= limit, exactly. Used is what was settled in this window and never shrinks because a limit changes: with a
// limit raised from 10 to 20 there are 10 more. A settlement may be more than what was reserved, and bring an account above its limit.
//
// A [Window] is part of the calendar of a zone, starts with the first request (Flexi), or is counted from a start time. Without a unit nothing is used up:
// that is a limit of open requests. A Spike demand has no window but equal spacing, in whole nanoseconds, rounded up.
//
// A reservation belongs to the window in which it was taken. When that is over it counts no longer, and its settlement is dropped. A
// reservation that is never settled is given back after the hold time, at most a quarter later: an account has eight groups of holds, and each of them
// expires as a whole.
//
// When the clock steps back an account stays in its window. If its window begins further ahead than it is long (a minute at least), the clock was wrong before,
// and the account begins again.
//
// # Tables
//
// [Memory] is for the threads of one process: one lock, no allocation for an account that is known. It keeps a bounded number of
// accounts. One of which nothing is used or held gives its place to a new one; another never does. A new one that finds no place shares the overflow
// account of its limit and window, which [Counts] shows.
//
// [Shared] is for workers that share a kv.Store (wasm). An account is in one of a fixed number of records, eight in a record at most, each written with
// compare-and-swap. Take writes the records of its accounts one after the other. If one changed meanwhile it is read and checked again. If it refuses
// then, Take gives back what it has written and starts again: so a limit is never exceeded, but another request may be refused at that moment for what is
// given back. After many lost rounds the outcome is Busy, with nothing taken: others take from the same accounts, and the store is well. It is not Failed,
// since a caller that lets requests pass while the store fails must not let them pass for contention, which a client can cause.
//
// A settlement that cannot be written is kept in the worker's memory, up to 256 of them, and written at its next call, also after its reservation has
// expired: it becomes late, and no refund. What a worker has in memory when it ends is lost, as is the settlement of a request that ends with its worker: these
// reservations expire.
//
// # Several proxies
//
// With Shared demands the companion is the allocator: it divides each limit among the proxies. For each account, window and proxy there are
// four numbers, all cumulative within the window, none of which ever shrinks: Used, Back (of Used, refunded), Granted and Released. A
// proxy may have in use what is granted and not released. The allocator counts for each proxy the larger of Granted - Released and Used - Back, and grants while the
// sum is within the limit. Who receives a number keeps the larger one. So messages can be lost, repeated and overtaken, and nothing is counted twice.
//
//   - A request that finds nothing granted (Dry) asks, and is granted exactly what is missing for it and for those that wait with it. It is
//     refused only if the allocator has no more, said in the last 20 ms.
//   - Up to 1,000 per window nothing is granted in stock: limits are exact. Above that a proxy may have in stock what it took in the last 100 ms. All
//     together have at most 1 % of the limit in stock, and half of what is left.
//   - What a proxy does not need it releases at each tick, first in its own table and then in a message.
//   - A proxy says something every [Renew]. After [Lease] without a message the allocator takes it for dead: what it has used stays, the rest is free. A proxy
//     trusts its grants only for half of that after it sent the last message that was replied to, so both never use the same grant. Requests that
//     are still open then are over the limit, if others used it up meanwhile.
//   - What a proxy used and did not say before it died (at most a tick) is lost. One that was cut off says it when it is back.
//   - Windows are those of the allocator's clock. A response carries that clock, so a proxy knows the difference but for the time that responses take; a
//     proxy may be a second early.
//   - An allocator without its memory has another generation. It grants nothing for Lease/2, in which all proxies say again what they have used and hold.
//   - While the companion is silent, Open demands are admitted up to limit / proxies of this proxy's own use, with an error that nobody bounds: an
//     exhausted limit may be exceeded by once itself. A proxy that has never heard the companion does not know how many there are, and admits the whole
//     limit: while the companion is away from the start, n proxies admit n times the limit. Any other share would refuse what a single proxy may serve; who
//     cannot have that sets Open to false. Others are Unreachable once the grants are used up or not trusted.
//   - Spike demands are never asked for: each proxy has its part of the rate.
//
// [Allocator] is the allocator's side as arithmetic, [Message] and [Reply] are what is said.
package account
