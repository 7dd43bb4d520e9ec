package export

/*
#cgo darwin LDFLAGS: -Wl,-undefined,dynamic_lookup
#cgo linux LDFLAGS: -Wl,--unresolved-symbols=ignore-all
#include "balancer.h"
*/
import "C"

import (
	"errors"
	"slices"
	"strconv"
	"unsafe"

	"github.com/inlet-proxy/inlet/internal/native"
	"github.com/inlet-proxy/inlet/shared/adapters/module/balancer"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// The entry points of the load-balancing policy, which the SDK does not have. Envoy gets
// ids, no pointers of Go. No panic leaves an entry point: it would end Envoy.

var (
	policies  balancer.Registry[balancer.Config]
	instances balancer.Registry[instance]
)

// instance is the policy in one cluster on one thread, with what Envoy passes to a call
// of it.
type instance struct {
	*balancer.Balancer
	header  string
	lb      C.envoy_dynamic_module_type_lb_envoy_ptr
	context C.envoy_dynamic_module_type_lb_context_envoy_ptr

	hosts   []C.inlet_host // memory for Hosts
	all, ok []balancer.Member
}

//export envoy_dynamic_module_on_lb_config_new
func envoy_dynamic_module_on_lb_config_new(_ C.envoy_dynamic_module_type_lb_config_envoy_ptr, name, config C.envoy_dynamic_module_type_envoy_buffer) (id C.envoy_dynamic_module_type_lb_config_module_ptr) {
	defer caught("its configuration is refused")
	if n := string(bytes(name)); n != balancer.Name {
		fail("lb_policy_name " + strconv.Quote(n) + ": there is only " + strconv.Quote(balancer.Name))
		return 0
	}
	c, err := balancer.Read(slices.Clone(bytes(config)))
	var mistakes conf.Errors
	switch {
	case errors.As(err, &mistakes):
		for _, m := range mistakes {
			fail("lb_policy_config: " + m.Error())
		}
		return 0
	case err != nil:
		fail("lb_policy_config: " + err.Error())
		return 0
	}
	return C.envoy_dynamic_module_type_lb_config_module_ptr(policies.Add(&c))
}

//export envoy_dynamic_module_on_lb_config_destroy
func envoy_dynamic_module_on_lb_config_destroy(id C.envoy_dynamic_module_type_lb_config_module_ptr) {
	defer caught("it is not used any more")
	policies.Remove(uintptr(id))
}

//export envoy_dynamic_module_on_lb_new
func envoy_dynamic_module_on_lb_new(of C.envoy_dynamic_module_type_lb_config_module_ptr, lb C.envoy_dynamic_module_type_lb_envoy_ptr) (id C.envoy_dynamic_module_type_lb_module_ptr) {
	defer caught("the cluster gets no host")
	c := policies.Get(uintptr(of))
	i := &instance{lb: lb, header: c.Header}
	i.Balancer = balancer.New(string(bytes(C.inlet_cluster(lb))), *c, balancer.Shared, func(p any) { fail(native.Describe(p)) })
	i.Update(i)
	return C.envoy_dynamic_module_type_lb_module_ptr(instances.Add(i))
}

//export envoy_dynamic_module_on_lb_destroy
func envoy_dynamic_module_on_lb_destroy(id C.envoy_dynamic_module_type_lb_module_ptr) {
	defer caught("it is not used any more")
	instances.Remove(uintptr(id)).Close()
}

//export envoy_dynamic_module_on_lb_on_host_membership_update
func envoy_dynamic_module_on_lb_on_host_membership_update(lb C.envoy_dynamic_module_type_lb_envoy_ptr, id C.envoy_dynamic_module_type_lb_module_ptr, added, removed C.size_t) {
	defer caught("the change is not seen")
	i := instances.Get(uintptr(id))
	i.lb = lb
	i.Update(i)
}

//export envoy_dynamic_module_on_lb_choose_host
func envoy_dynamic_module_on_lb_choose_host(lb C.envoy_dynamic_module_type_lb_envoy_ptr, id C.envoy_dynamic_module_type_lb_module_ptr, context C.envoy_dynamic_module_type_lb_context_envoy_ptr, priority, index *C.uint32_t) (chosen C.bool) {
	defer caught("the request gets no host")
	i := instances.Get(uintptr(id))
	i.lb, i.context = lb, context
	p, n, ok := i.Choose(i, i)
	*priority, *index = C.uint32_t(p), C.uint32_t(n)
	return C.bool(ok)
}

// Priorities implements balancer.Cluster.
func (i *instance) Priorities() int {
	return int(C.envoy_dynamic_module_callback_lb_get_priority_set_size(i.lb))
}

// Healthy implements balancer.Cluster.
func (i *instance) Healthy(priority int) int {
	return int(C.envoy_dynamic_module_callback_lb_get_healthy_hosts_count(i.lb, C.uint32_t(priority)))
}

// Hosts implements balancer.Cluster.
func (i *instance) Hosts(priority int) (all, healthy []balancer.Member) {
	n := int(C.envoy_dynamic_module_callback_lb_get_hosts_count(i.lb, C.uint32_t(priority)))
	i.all = i.read(i.all, priority, n, false)
	i.ok = i.read(i.ok, priority, i.Healthy(priority), true)
	return i.all, i.ok
}

func (i *instance) read(members []balancer.Member, priority, n int, healthy bool) []balancer.Member {
	members = members[:0]
	if n == 0 {
		return members
	}
	i.hosts = slices.Grow(i.hosts[:0], n)[:n]
	C.inlet_hosts(i.lb, C.uint32_t(priority), C.bool(healthy), &i.hosts[0], C.size_t(n))
	for _, h := range i.hosts {
		members = append(members, balancer.Member{Address: bytes(h.address), Weight: uint32(h.weight)})
	}
	return members
}

// List implements balancer.Request.
func (i *instance) List() []byte {
	name := (*C.char)(unsafe.Pointer(unsafe.StringData(i.header)))
	return bytes(C.inlet_header(i.context, name, C.size_t(len(i.header))))
}

// Look implements balancer.Request.
func (i *instance) Look(priority, all, healthy uint32) balancer.Look {
	l := C.inlet_look_at(i.lb, i.context, C.uint32_t(priority), C.uint32_t(all), C.uint32_t(healthy))
	return balancer.Look{Address: bytes(l.address), Active: uint64(l.active), Tried: bool(l.tried), Healthy: bool(l.healthy)}
}

// bytes are those of a buffer of Envoy, where they lie.
func bytes(b C.envoy_dynamic_module_type_envoy_buffer) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(b.ptr)), int(b.length))
}

// caught is deferred by every entry point: it logs a panic, and what follows of it.
func caught(so string) {
	if p := recover(); p != nil {
		fail(native.Describe(p) + ": " + so)
	}
}

// fail writes a line to Envoy's log.
func fail(text string) {
	text = "inlet: load-balancing policy: " + text
	C.inlet_error((*C.char)(unsafe.Pointer(unsafe.StringData(text))), C.size_t(len(text)))
}
