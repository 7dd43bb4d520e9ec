package kube

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func TestDirectory(t *testing.T) {
	cluster, err := connect(&rest.Config{Host: "http://127.0.0.1:1"}, "infra")
	require.NoError(t, err)
	d := NewDirectory(cluster, DirectorySource{ConfigMap: "products", Secret: "keys"}, slog.New(slog.DiscardHandler))
	require.Equal(t, "ConfigMap infra/products and Secret infra/keys", d.String())
	_, err = d.Read()
	require.ErrorIs(t, err, ErrNotRead)

	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: "infra"} }
	products := &corev1.ConfigMap{ObjectMeta: named("products"), Data: map[string]string{
		"a.yaml": "developers: [{name: ann}]\nproducts: [{name: trial, requests: 5/min}]", "b.json": `{"products": [{"name": "gold"}]}`, "README": "no list",
	}}
	require.NoError(t, d.parts[0].Replace([]any{products}, ""))
	_, err = d.Read()
	require.ErrorIs(t, err, ErrNotRead, "half of it is not all of it")
	require.NoError(t, d.parts[1].Replace(nil, ""))
	_, err = d.Read()
	require.EqualError(t, err, "there is no Secret infra/keys")

	keys := &corev1.Secret{ObjectMeta: named("keys"), Data: map[string][]byte{"keys.yaml": []byte("keys: [{name: demo, sha256: abc}]")}}
	require.NoError(t, d.parts[1].Add(keys))
	text, err := d.Read()
	require.NoError(t, err)
	require.YAMLEq(t, `
developers: [{name: ann}]
products: [{name: trial, requests: 5/min}, {name: gold}]
keys: [{name: demo, sha256: abc}]
`, string(text))
	again, err := d.Read()
	require.NoError(t, err)
	require.Equal(t, text, again, "the same each time, so that nothing looks changed")

	keys.Data["keys.yaml"] = []byte("sk-secret")
	require.NoError(t, d.parts[1].Add(keys))
	_, err = d.Read()
	require.EqualError(t, err, "Secret infra/keys, keys.yaml: not a mapping of lists")
}
