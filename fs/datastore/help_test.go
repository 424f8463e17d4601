package datastore

import "context"

var ctx = context.Background()
