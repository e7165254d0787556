// A real provider of OpenID Connect for the tests: anybody who types a name and a password is let in,
// and their groups are what the name has after a "+". Prints its address once it listens.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const [clientId, clientSecret, ...backs] = process.argv.slice(2);

const key = (kid, kind, options, alg) => ({
  ...generateKeyPairSync(kind, options).privateKey.export({ format: "jwk" }),
  kid, alg, use: "sig",
});

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: clientId,
      client_secret: clientSecret,
      redirect_uris: backs,
      response_types: ["code"],
      grant_types: ["authorization_code"],
      id_token_signed_response_alg: "ES256",
    }],
    jwks: { keys: [
      key("first", "rsa", { modulusLength: 2048 }, "RS256"),
      key("second", "ec", { namedCurve: "P-256" }, "ES256"),
    ] },
    cookies: { keys: ["for the tests alone"] },
    claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    findAccount: (ctx, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        preferred_username: id.split("+")[0],
        groups: id.split("+").slice(1),
      }),
    }),
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
