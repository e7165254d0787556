// @tus/server with @tus/s3-store on the store of the bench. Prints its port.
import { S3Store } from "@tus/s3-store";
import { Server } from "@tus/server";

const { S3_ENDPOINT, S3_BUCKET, S3_ACCESS_KEY, S3_SECRET_KEY } = process.env;

const datastore = new S3Store({
  partSize: 8 * 1024 * 1024,
  useTags: false,
  s3ClientConfig: {
    bucket: S3_BUCKET,
    endpoint: S3_ENDPOINT,
    region: "us-east-1",
    forcePathStyle: true,
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    credentials: { accessKeyId: S3_ACCESS_KEY, secretAccessKey: S3_SECRET_KEY },
  },
});

const server = new Server({ path: "/files", datastore }).listen(0, "127.0.0.1", () => {
  console.log(server.address().port);
});
process.on("SIGTERM", () => process.exit(0));
