"""Reads a data set that `tcptrace export --format parquet` made, with DuckDB or Spark, and prints what is in it as JSON.

    query.py duckdb|spark DATASET SCRATCH

No option tells either of them anything about the files: what they make of them is what a user gets.
"""

import json
import sys


class DuckDB:
    unnest = "unnest"
    micros = "epoch_us"
    quote = '"'

    def __init__(self, dataset, scratch):
        import duckdb

        self.connection = duckdb.connect(config={"temp_directory": scratch})
        for kind in ("connections", "transitions"):
            files = f"{dataset}/kind={kind}/**/*.parquet".replace("'", "''")
            self.connection.sql(f"create view {kind} as select * from read_parquet('{files}', hive_partitioning = true)")

    def rows(self, query):
        return self.connection.sql(query).fetchall()


class Spark:
    unnest = "explode"
    micros = "unix_micros"
    quote = "`"

    def __init__(self, dataset, scratch):
        from pyspark.sql import SparkSession

        settings = {
            # One machine, and no more threads or ports than it takes.
            "spark.master": "local[1]",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.shuffle.partitions": "1",
            "spark.local.dir": scratch,
            "spark.sql.warehouse.dir": scratch,
            # Compiling would take longer than these queries do.
            "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        }
        builder = SparkSession.builder
        for name, value in settings.items():
            builder = builder.config(name, value)
        self.session = builder.getOrCreate()
        for kind in ("connections", "transitions"):
            reader = self.session.read.option("basePath", dataset)
            reader.parquet(f"{dataset}/kind={kind}").createOrReplaceTempView(kind)

    def rows(self, query):
        return [tuple(row) for row in self.session.sql(query).collect()]


def whole(value):
    """Sums are decimals for one of them."""
    return None if value is None else int(value)


def main():
    engine, dataset, scratch = sys.argv[1:]
    data = {"duckdb": DuckDB, "spark": Spark}[engine](dataset, scratch)
    closers = data.rows(
        "select closer, count(*), count(time_wait_ns), sum(time_wait_ns), sum(bytes_sent), "
        "sum(case when complete then 1 else 0 end) from connections group by closer"
    )
    states = data.rows(
        "select stay.state, count(*), sum(stay.ns), sum(case when stay.at_least then 1 else 0 end) "
        f"from (select {data.unnest}(states) as stay from connections) as stays group by stay.state"
    )
    exact = data.rows(
        "select stay.state, min(stay.ns), max(stay.ns) "
        f"from (select {data.unnest}(states) as stay from connections) as stays where not stay.at_least group by stay.state"
    )
    # `end` is a word of SQL.
    quote = data.quote
    ends = data.rows(f"select {quote}end{quote}, count(*) from connections where event = 'connection' group by 1")
    closed_by = data.rows(
        "select closer, count(*) from connections where event = 'connection' or closer <> 'unknown' group by closer"
    )
    open_ones = data.rows("select count(*) from connections where event = 'open' and closed is null")
    sent = data.rows("select sum(bytes_sent) from connections where event = 'connection'")
    transitions = data.rows("select old, new, count(*), sum(held_ns) from transitions group by old, new")
    places = data.rows(
        "select distinct kind, cast(date as string), host, boot_id from connections "
        "union select distinct kind, cast(date as string), host, boot_id from transitions"
    )
    # The timestamp and the whole number tell the same time.
    times = data.rows(
        f"select count(*), min(closed_unix_ns), max(closed_unix_ns) from connections "
        f"where {data.micros}(closed) * 1000 = closed_unix_ns - closed_unix_ns % 1000"
    )
    ports = data.rows("select remote_ip, remote_port, count(*) from connections group by remote_ip, remote_port")
    print(
        json.dumps(
            {
                "closers": {row[0]: [whole(value) for value in row[1:]] for row in closers},
                "states": {row[0]: [whole(value) for value in row[1:]] for row in states},
                "report": {
                    "closer": {row[0]: row[1] for row in closed_by},
                    "end": {row[0]: row[1] for row in ends},
                    "exact": {row[0]: [row[1], row[2]] for row in exact},
                    "open": open_ones[0][0],
                    "bytes_sent": whole(sent[0][0]),
                },
                "transitions": {f"{row[0]} {row[1]}": [whole(value) for value in row[2:]] for row in transitions},
                "places": sorted(" ".join(row) for row in places),
                "times": [whole(value) for value in times[0]],
                "ports": {f"{row[0]} {row[1]}": row[2] for row in ports},
            }
        )
    )


main()
