// Not built: what is wanted of it are the cases by which CESQL is judged (its test/tck), which no package has.
module wellhead.invalid/cesql

go 1.23

require github.com/cloudevents/sdk-go/sql/v2 v2.16.2
