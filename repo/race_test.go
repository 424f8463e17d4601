//go:build race

package repo_test

// raceDetector tells that everything takes some five times as long.
const raceDetector = true
