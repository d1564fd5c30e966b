// Command ssa records what upstream's own field manager makes of the scripts of
// server-side apply that our tests replay.
//
//	ssa DEFINITIONS SCRIPT...
//
// DEFINITIONS is core/openapi/data/builtin.json. Each SCRIPT is rewritten in
// place: every step gets "want" (the object) or "conflict" or "invalid".
// A script is {"gvk": [group, version, kind], "schema": {...}?, "status": bool,
// "steps": [{"apply": object, "manager": name, "force": bool, "subresource": name} |
// {"update": object, ...} | {"merge": patch, ...}]}.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

type object = map[string]any

// same converts nothing: every script stays in one version.
type same struct{ gvk schema.GroupVersionKind }

func (same) Convert(_, _, _ any) error { return nil }
func (same) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}
func (same) ConvertFieldLabel(_ schema.GroupVersionKind, l, v string) (string, string, error) {
	return l, v, nil
}
func (same) Default(runtime.Object) {}
func (s same) New(schema.GroupVersionKind) (runtime.Object, error) {
	return blank(s.gvk), nil
}

func blank(gvk schema.GroupVersionKind) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: object{}}
	u.SetGroupVersionKind(gvk)
	return u
}

type step struct {
	Apply       object   `json:"apply,omitempty"`
	Update      object   `json:"update,omitempty"`
	Merge       object   `json:"merge,omitempty"`
	Manager     string   `json:"manager"`
	Force       bool     `json:"force,omitempty"`
	Subresource string   `json:"subresource,omitempty"`
	Want        object   `json:"want,omitempty"`
	Conflict    string   `json:"conflict,omitempty"`
	Causes      []string `json:"causes,omitempty"`
	Invalid     bool     `json:"invalid,omitempty"`
}

type script struct {
	About  string    `json:"about"`
	GVK    [3]string `json:"gvk"`
	Status bool      `json:"status,omitempty"`
	Schema object    `json:"schema,omitempty"`
	Steps  []*step   `json:"steps"`
}

type recorder struct {
	script  *script
	gvk     schema.GroupVersionKind
	types   managedfields.TypeConverter
	live    *unstructured.Unstructured
	started []time.Time
}

func (r *recorder) manager(subresource string) *managedfields.FieldManager {
	version := fieldpath.APIVersion(r.gvk.GroupVersion().String())
	reset := map[fieldpath.APIVersion]*fieldpath.Set{}
	switch {
	case subresource == "" && r.script.Status:
		reset[version] = fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
	case subresource == "status":
		reset[version] = fieldpath.NewSet(fieldpath.MakePathOrDie("spec"),
			fieldpath.MakePathOrDie("metadata", "deletionTimestamp"), fieldpath.MakePathOrDie("metadata", "ownerReferences"))
	}
	s := same{r.gvk}
	m, err := managedfields.NewDefaultFieldManager(r.types, s, s, s, r.gvk, r.gvk.GroupVersion(), subresource,
		fieldpath.NewExcludeFilterSetMap(reset))
	check(err)
	return m
}

func copyOf(o object) object { return runtime.DeepCopyJSON(o) }

func merge(base, patch object) {
	for k, v := range patch {
		old, isMap := base[k].(object)
		new, toMap := v.(object)
		switch {
		case v == nil:
			delete(base, k)
		case toMap:
			if !isMap {
				old = object{}
				base[k] = old
			}
			merge(old, new)
		default:
			base[k] = v
		}
	}
}

// prune drops what a typed object cannot hold: nulls (lists and maps left empty by a removal are such). The field
// "any" is where scripts keep free-form content.
func prune(v any) {
	switch v := v.(type) {
	case object:
		for k, x := range v {
			if x == nil {
				delete(v, k)
			} else if k != "any" {
				prune(x)
			}
		}
	case []any:
		for _, x := range v {
			prune(x)
		}
	}
}

func timeless(o object) object {
	o = copyOf(o)
	list, _, _ := unstructured.NestedSlice(o, "metadata", "managedFields")
	for _, e := range list {
		delete(e.(object), "time")
	}
	if list != nil {
		check(unstructured.SetNestedSlice(o, list, "metadata", "managedFields"))
	}
	return o
}

func (r *recorder) run(s *step) {
	live := r.live
	if live == nil {
		live = blank(r.gvk)
	}
	m := r.manager(s.Subresource)
	var out runtime.Object
	var err error
	switch {
	case s.Apply != nil:
		out, err = m.Apply(live.DeepCopy(), &unstructured.Unstructured{Object: copyOf(s.Apply)}, s.Manager, s.Force)
	case s.Update != nil:
		out, err = m.Update(live.DeepCopy(), &unstructured.Unstructured{Object: copyOf(s.Update)}, s.Manager)
	default:
		next := live.DeepCopy()
		merge(next.Object, copyOf(s.Merge))
		out, err = m.Update(live.DeepCopy(), next, s.Manager)
	}
	s.Want, s.Conflict, s.Causes, s.Invalid = nil, "", nil, false
	if status, ok := err.(*errors.StatusError); ok && status.ErrStatus.Code == 409 {
		s.Conflict = status.Error()
		for _, c := range status.ErrStatus.Details.Causes {
			s.Causes = append(s.Causes, c.Field+": "+c.Message)
		}
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, r.script.About+":", err)
		s.Invalid = true
		return
	}
	next := out.(*unstructured.Unstructured)
	prune(next.Object)
	if r.live != nil && reflect.DeepEqual(timeless(r.live.Object), timeless(next.Object)) {
		next = r.live // the API server does not store what differs by times alone
	}
	r.live = next
	s.Want = r.stepTimes(copyOf(next.Object))
}

// stepTimes replaces times by the number of the step that set them.
func (r *recorder) stepTimes(o object) object {
	list, _, _ := unstructured.NestedSlice(o, "metadata", "managedFields")
	for _, e := range list {
		text, _ := e.(object)["time"].(string)
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			continue
		}
		for i := len(r.started) - 1; i >= 0; i-- {
			if !at.Before(r.started[i]) {
				e.(object)["time"] = fmt.Sprintf("2026-01-01T00:00:%02dZ", i)
				break
			}
		}
	}
	if list != nil {
		check(unstructured.SetNestedSlice(o, list, "metadata", "managedFields"))
	}
	return o
}

func models(builtin object, s *script) map[string]*spec.Schema {
	all := copyOf(builtin)
	if s.Schema != nil {
		own := copyOf(s.Schema)
		properties, _ := own["properties"].(object)
		if properties == nil {
			properties = object{}
		}
		text := object{"type": "string"}
		properties["apiVersion"], properties["kind"] = text, text
		properties["metadata"] = object{"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
		own["properties"] = properties
		own["x-kubernetes-group-version-kind"] = []any{object{"group": s.GVK[0], "version": s.GVK[1], "kind": s.GVK[2]}}
		all["script.Kind"] = own
	}
	text, err := json.Marshal(all)
	check(err)
	out := map[string]*spec.Schema{}
	check(json.Unmarshal(text, &out))
	return out
}

func decode(path string, into any) {
	text, err := os.ReadFile(path)
	check(err)
	check(json.Unmarshal(text, into))
}

// integers makes whole numbers int64, as a decoded Kubernetes object has them.
func integers(v any) any {
	switch v := v.(type) {
	case float64:
		if v == float64(int64(v)) {
			return int64(v)
		}
	case object:
		for k, x := range v {
			v[k] = integers(x)
		}
	case []any:
		for i, x := range v {
			v[i] = integers(x)
		}
	}
	return v
}

func record(builtin object, path string) {
	s := &script{}
	decode(path, s)
	gvk := schema.GroupVersionKind{Group: s.GVK[0], Version: s.GVK[1], Kind: s.GVK[2]}
	types, err := managedfields.NewTypeConverter(models(builtin, s), false)
	check(err)
	r := &recorder{script: s, gvk: gvk, types: types}
	for _, st := range s.Steps {
		integers(st.Apply)
		integers(st.Update)
		integers(st.Merge)
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // times are kept in seconds
		r.started = append(r.started, time.Now().UTC().Truncate(time.Second))
		r.run(st)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	check(e.Encode(s))
	check(os.WriteFile(path, out.Bytes(), 0o644))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: ssa DEFINITIONS SCRIPT...")
		os.Exit(2)
	}
	var document struct {
		Definitions object `json:"definitions"`
	}
	decode(os.Args[1], &document)
	integers(document.Definitions)
	var wait sync.WaitGroup
	slots := make(chan struct{}, 512) // they mostly wait for the next second
	for _, path := range os.Args[2:] {
		if !strings.HasSuffix(path, ".json") {
			continue
		}
		wait.Add(1)
		slots <- struct{}{}
		go func() {
			defer wait.Done()
			record(document.Definitions, path)
			<-slots
		}()
	}
	wait.Wait()
}
