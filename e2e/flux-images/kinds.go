// Package images keeps the types of the image controllers of Flux in go.mod, whose definitions controller-gen writes.
package images

import (
	_ "github.com/fluxcd/image-automation-controller/api/v1"
	_ "github.com/fluxcd/image-reflector-controller/api/v1"
)
