// Submits a job from JavaScript:  npm ci && node submit.mjs 127.0.0.1:9092 "$PWD/../../samples" [--structured]
import { randomUUID } from "node:crypto";
import { Kafka, Partitioners } from "kafkajs";

const [broker, path, mode] = process.argv.slice(2);
const event = { specversion: "1.0", id: randomUUID(), source: "examples/clients/kafkajs", type: "org.medicalkg.job.submitted" };
const data = { tenant_id: "default", source: "files", selection: { paths: [path] } };

// Binary mode: the attributes are ce_ headers, the value is the data. Structured mode: the value is the whole event.
const attributes = Object.fromEntries(Object.entries(event).map(([name, value]) => [`ce_${name}`, value]));
const binary = { headers: { ...attributes, "content-type": "application/json" }, value: JSON.stringify(data) };
const whole = { ...event, datacontenttype: "application/json", data };
const structured = { headers: { "content-type": "application/cloudevents+json" }, value: JSON.stringify(whole) };

const kafka = new Kafka({ clientId: "medkg-example", brokers: [broker] });
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
await producer.connect();
await producer.send({ topic: "medkg.jobs.v1", messages: [{ key: event.id, ...(mode === "--structured" ? structured : binary) }] });
await producer.disconnect();
console.log(`submitted ${event.id} to ${broker}`);
