// Reads Kubernetes manifests and rejects unknown fields, as the API server does with `kubectl --validate=strict`.
//
//	kube FILE
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/json"
	strict "sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	documents := yaml.NewDocumentDecoder(file)
	text := make([]byte, 1<<20)
	for {
		length, err := documents.Read(text)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		document := text[:length]
		var kind metav1.TypeMeta
		if err := strict.Unmarshal(document, &kind); err != nil {
			return err
		}
		var into any
		switch kind.APIVersion + " " + kind.Kind {
		case "apps/v1 Deployment":
			into = &appsv1.Deployment{}
		case "batch/v1 CronJob":
			into = &batchv1.CronJob{}
		case "batch/v1 Job":
			into = &batchv1.Job{}
		case "v1 PersistentVolumeClaim":
			into = &corev1.PersistentVolumeClaim{}
		case "v1 Service":
			into = &corev1.Service{}
		default:
			return fmt.Errorf("%s has a %s %s, which this program does not support", path, kind.APIVersion, kind.Kind)
		}
		// As in the server, names are case-sensitive, and a name occurs only once.
		asJSON, err := strict.YAMLToJSONStrict(document)
		if err != nil {
			return err
		}
		unknown, err := json.UnmarshalStrict(asJSON, into)
		if err := errors.Join(append(unknown, err)...); err != nil {
			return fmt.Errorf("%s: %s: %w", path, kind.Kind, err)
		}
		fmt.Println(kind.Kind)
	}
}
