// tus-js-client as it comes: uploads one file, and says what became of it in one line of JSON.
import { readFileSync } from 'node:fs'
import { Upload } from 'tus-js-client'

const { file, ...options } = JSON.parse(process.argv[2])
const seen = { offsets: [], retries: 0 }
const upload = new Upload(readFileSync(file), {
  ...options,
  onProgress: (sent) => seen.offsets.push(sent),
  onShouldRetry: () => (seen.retries += 1) > 0,
  onAfterResponse: (request, response) => {
    seen.last = [request.getMethod(), response.getStatus()]
    seen.digest = response.getHeader('Repr-Digest')
  },
  onSuccess: () => console.log(JSON.stringify({ ...seen, url: upload.url })),
  onError: (error) => console.log(JSON.stringify({ ...seen, error: String(error) })),
})
upload.start()
