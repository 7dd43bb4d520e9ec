// What the load-balancing policy uses of Envoy's ABI for dynamic modules, v0.1.0: names, types and order of parameters are
// Envoy's. A test compiles this file together with the header in the SDK, which is the authority; the SDK's own header cannot be
// included from another Go module.
//
// Pointers of Envoy and ids of this module are numbers here: nobody follows them, and so Go's garbage collector need not know of them.
#ifndef INLET_BALANCER_H
#define INLET_BALANCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef INLET_ABI_HEADER
typedef uintptr_t envoy_dynamic_module_type_lb_config_envoy_ptr;
typedef uintptr_t envoy_dynamic_module_type_lb_config_module_ptr;
typedef uintptr_t envoy_dynamic_module_type_lb_envoy_ptr;
typedef uintptr_t envoy_dynamic_module_type_lb_module_ptr;
typedef uintptr_t envoy_dynamic_module_type_lb_context_envoy_ptr;
typedef struct {
	const char *ptr;
	size_t length;
} envoy_dynamic_module_type_envoy_buffer;
typedef struct {
	const char *ptr;
	size_t length;
} envoy_dynamic_module_type_module_buffer;
typedef enum {
	envoy_dynamic_module_type_host_health_Healthy = 2,
} envoy_dynamic_module_type_host_health;
typedef enum {
	envoy_dynamic_module_type_host_stat_RqActive = 7,
} envoy_dynamic_module_type_host_stat;
typedef enum {
	envoy_dynamic_module_type_log_level_Error = 4,
} envoy_dynamic_module_type_log_level;
#endif

void envoy_dynamic_module_callback_log(envoy_dynamic_module_type_log_level level, envoy_dynamic_module_type_module_buffer message);
void envoy_dynamic_module_callback_lb_get_cluster_name(envoy_dynamic_module_type_lb_envoy_ptr lb,
                                                       envoy_dynamic_module_type_envoy_buffer *result);
size_t envoy_dynamic_module_callback_lb_get_priority_set_size(envoy_dynamic_module_type_lb_envoy_ptr lb);
size_t envoy_dynamic_module_callback_lb_get_hosts_count(envoy_dynamic_module_type_lb_envoy_ptr lb, uint32_t priority);
size_t envoy_dynamic_module_callback_lb_get_healthy_hosts_count(envoy_dynamic_module_type_lb_envoy_ptr lb, uint32_t priority);
bool envoy_dynamic_module_callback_lb_get_host_address(envoy_dynamic_module_type_lb_envoy_ptr lb, uint32_t priority, size_t index,
                                                       envoy_dynamic_module_type_envoy_buffer *result);
uint32_t envoy_dynamic_module_callback_lb_get_host_weight(envoy_dynamic_module_type_lb_envoy_ptr lb, uint32_t priority, size_t index);
bool envoy_dynamic_module_callback_lb_get_healthy_host_address(envoy_dynamic_module_type_lb_envoy_ptr lb, uint32_t priority, size_t index,
                                                               envoy_dynamic_module_type_envoy_buffer *result);
envoy_dynamic_module_type_host_health envoy_dynamic_module_callback_lb_get_host_health(envoy_dynamic_module_type_lb_envoy_ptr lb,
                                                                                       uint32_t priority, size_t index);
uint64_t envoy_dynamic_module_callback_lb_get_host_stat(envoy_dynamic_module_type_lb_envoy_ptr lb, uint32_t priority, size_t index,
                                                        envoy_dynamic_module_type_host_stat stat);
bool envoy_dynamic_module_callback_lb_context_get_downstream_header(envoy_dynamic_module_type_lb_context_envoy_ptr context,
                                                                    envoy_dynamic_module_type_module_buffer key,
                                                                    envoy_dynamic_module_type_envoy_buffer *result, size_t index,
                                                                    size_t *size);
bool envoy_dynamic_module_callback_lb_context_should_select_another_host(envoy_dynamic_module_type_lb_envoy_ptr lb,
                                                                         envoy_dynamic_module_type_lb_context_envoy_ptr context,
                                                                         uint32_t priority, size_t index);

// What Envoy calls: balancer.go has them.
envoy_dynamic_module_type_lb_config_module_ptr envoy_dynamic_module_on_lb_config_new(envoy_dynamic_module_type_lb_config_envoy_ptr of,
                                                                                     envoy_dynamic_module_type_envoy_buffer name,
                                                                                     envoy_dynamic_module_type_envoy_buffer config);
void envoy_dynamic_module_on_lb_config_destroy(envoy_dynamic_module_type_lb_config_module_ptr id);
envoy_dynamic_module_type_lb_module_ptr envoy_dynamic_module_on_lb_new(envoy_dynamic_module_type_lb_config_module_ptr id,
                                                                       envoy_dynamic_module_type_lb_envoy_ptr lb);
void envoy_dynamic_module_on_lb_destroy(envoy_dynamic_module_type_lb_module_ptr id);
void envoy_dynamic_module_on_lb_on_host_membership_update(envoy_dynamic_module_type_lb_envoy_ptr lb,
                                                          envoy_dynamic_module_type_lb_module_ptr id, size_t added, size_t removed);
bool envoy_dynamic_module_on_lb_choose_host(envoy_dynamic_module_type_lb_envoy_ptr lb, envoy_dynamic_module_type_lb_module_ptr id,
                                            envoy_dynamic_module_type_lb_context_envoy_ptr context, uint32_t *priority, uint32_t *index);

// inlet_host is a host as Envoy reports it.
typedef struct {
	envoy_dynamic_module_type_envoy_buffer address;
	uint32_t weight;
} inlet_host;

// inlet_hosts lists the first n hosts of a priority: all, or those that are healthy, without their weights.
static inline void inlet_hosts(envoy_dynamic_module_type_lb_envoy_ptr lb, uint32_t priority, bool healthy, inlet_host *hosts, size_t n) {
	for (size_t i = 0; i < n; i++) {
		if (healthy) {
			envoy_dynamic_module_callback_lb_get_healthy_host_address(lb, priority, i, &hosts[i].address);
			continue;
		}
		envoy_dynamic_module_callback_lb_get_host_address(lb, priority, i, &hosts[i].address);
		hosts[i].weight = envoy_dynamic_module_callback_lb_get_host_weight(lb, priority, i);
	}
}

// inlet_look is balancer.Look.
typedef struct {
	envoy_dynamic_module_type_envoy_buffer address;
	uint64_t active;
	bool tried, healthy;
} inlet_look;

static inline inlet_look inlet_look_at(envoy_dynamic_module_type_lb_envoy_ptr lb, envoy_dynamic_module_type_lb_context_envoy_ptr context,
                                       uint32_t priority, uint32_t all, uint32_t healthy) {
	inlet_look l;
	envoy_dynamic_module_callback_lb_get_healthy_host_address(lb, priority, healthy, &l.address);
	l.active = envoy_dynamic_module_callback_lb_get_host_stat(lb, priority, all, envoy_dynamic_module_type_host_stat_RqActive);
	l.tried = envoy_dynamic_module_callback_lb_context_should_select_another_host(lb, context, priority, all);
	l.healthy = envoy_dynamic_module_callback_lb_get_host_health(lb, priority, all) == envoy_dynamic_module_type_host_health_Healthy;
	return l;
}

// inlet_header is the first value of a request header, with a length of 0 if there is none, or no request.
static inline envoy_dynamic_module_type_envoy_buffer inlet_header(envoy_dynamic_module_type_lb_context_envoy_ptr context, const char *name,
                                                                  size_t length) {
	envoy_dynamic_module_type_envoy_buffer value = {0};
	envoy_dynamic_module_type_module_buffer key = {.ptr = (char *)name, .length = length};
	envoy_dynamic_module_callback_lb_context_get_downstream_header(context, key, &value, 0, NULL);
	return value;
}

static inline envoy_dynamic_module_type_envoy_buffer inlet_cluster(envoy_dynamic_module_type_lb_envoy_ptr lb) {
	envoy_dynamic_module_type_envoy_buffer name = {0};
	envoy_dynamic_module_callback_lb_get_cluster_name(lb, &name);
	return name;
}

static inline void inlet_error(const char *text, size_t length) {
	envoy_dynamic_module_type_module_buffer message = {.ptr = (char *)text, .length = length};
	envoy_dynamic_module_callback_log(envoy_dynamic_module_type_log_level_Error, message);
}

#endif
