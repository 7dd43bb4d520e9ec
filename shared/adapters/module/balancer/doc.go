// Package balancer is the load-balancing policy of the native module: it sends each
// request to the first endpoint of the picker's list that the cluster has, that Envoy
// knows as healthy, and that the request has not been to.
//
// It holds what can be tested without Envoy. Package export, next to it, turns the C
// functions that Envoy calls into calls of this one.
//
// # What is chosen
//
//  1. The first address of the list that is in the cluster, healthy, and not tried yet
//     by this request. Which have been tried Envoy knows, if the route's retry policy
//     has the predicate previous_hosts.
//  2. Without a list, or if none of it can be used: the fallback of the configuration
//     among the healthy hosts that have not been tried. Priorities get their shares as
//     in Envoy's own policies, with its overprovisioning factor of 1.4.
//  3. A host that has been tried, rather than none.
//
// Envoy takes from a policy an index into the healthy hosts of a priority, and nothing
// else (ABI v0.1.0, Envoy 1.38 to 1.40). So neither an unhealthy host nor a degraded one
// can be chosen: there is no panic mode, and a cluster without a healthy host answers 503.
//
// # Threads
//
// Envoy makes a [Balancer] for each of its threads and calls it on that one only: it
// has no locks. What all share is the [Journal], and the [Registry] of ids.
package balancer
