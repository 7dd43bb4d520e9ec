package kube

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var gateway = Gateway{Namespace: "infra", Name: "inlet", Controller: "inlet.test/companion"}

// parentsOf returns status.parents as an API server gives it back: numbers are int64.
func parentsOf(t *testing.T, text string) []any {
	t.Helper()
	return poolOf(t, `{apiVersion: inference.networking.k8s.io/v1, kind: InferencePool, status: {parents: `+text+`}}`).parents
}

const others = `{controllerName: other.test/x, parentRef: {name: inlet, namespace: infra}, conditions: []}`

// Each writer changes its own entry, writes nothing that is already there, and keeps the time of what did not change.
func TestStatusIsMerged(t *testing.T) {
	pool := poolOf(t, v1Pool)
	pool.Generation = 3
	first := time.Unix(1000, 0)
	with, changed := gateway.merged(pool, parentsOf(t, `[`+others+`]`), first)
	require.True(t, changed)
	require.Len(t, with, 2)
	require.Equal(t, parentsOf(t, `[`+others+`]`)[0], with[0])
	require.Equal(t, map[string]any{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "infra", "name": "inlet"}, with[1].(map[string]any)["parentRef"])

	again, changed := gateway.merged(pool, with, first.Add(time.Hour))
	require.False(t, changed)
	require.Equal(t, with, again)

	pool.Generation = 4
	again, changed = gateway.merged(pool, with, first.Add(time.Hour))
	require.True(t, changed)
	one := again[1].(map[string]any)["conditions"].([]any)[0].(map[string]any)
	require.Equal(t, int64(4), one["observedGeneration"])
	require.Equal(t, first.UTC().Format(time.RFC3339), one["lastTransitionTime"], "its status is the same")

	again, changed = gateway.merged(pool, append(again, again[1]), first)
	require.True(t, changed)
	require.Len(t, again, 2, "ours is there once")
}

// An entry without a namespace is of the pool's namespace; group and kind have defaults.
func TestWhoseEntry(t *testing.T) {
	for text, ours := range map[string]bool{
		`{controllerName: inlet.test/companion, parentRef: {name: inlet, namespace: infra}}`:                    true,
		`{controllerName: inlet.test/companion, parentRef: {name: inlet}}`:                                      false,
		`{controllerName: inlet.test/companion, parentRef: {name: other, namespace: infra}}`:                    false,
		`{controllerName: inlet.test/companion, parentRef: {name: inlet, namespace: infra, kind: Service}}`:     false,
		`{controllerName: inlet.test/companion, parentRef: {name: inlet, namespace: infra, group: other.test}}`: false,
		`{parentRef: {name: inlet, namespace: infra}}`:                                                          false,
		`3`: false,
	} {
		require.Equal(t, ours, gateway.isOurs(parentsOf(t, `[`+text+`]`)[0], "models"), text)
	}
	require.True(t, gateway.isOurs(parentsOf(t, `[{controllerName: inlet.test/companion, parentRef: {name: inlet}}]`)[0], "infra"))
}

func TestConditions(t *testing.T) {
	for ref, want := range map[string]string{
		``:                                "True True",
		`endpointPickerRef: {name: epp},`: "True False InvalidExtensionRef",
		`endpointPickerRef: {name: epp, port: {number: 9002}},`:                               "True True",
		`endpointPickerRef: {name: epp, kind: Service, group: "", port: {number: 9002}},`:     "True True",
		`endpointPickerRef: {name: epp, kind: Thing, port: {number: 9002}},`:                  "True False InvalidExtensionRef",
		`endpointPickerRef: {name: epp, kind: Service, group: x.test, port: {number: 9002}},`: "True False InvalidExtensionRef",
	} {
		all := conditions(poolOf(t, strings.Replace(v1Pool, "targetPorts", ref+"targetPorts", 1)))
		got := string(all[0].Status) + " " + string(all[1].Status)
		if all[1].Status == "False" {
			got += " " + all[1].Reason
		}
		require.Equal(t, want, got, ref)
		require.Equal(t, ref != "", strings.Contains(all[0].Message, "the endpoint picker epp is not asked"))
	}
}
