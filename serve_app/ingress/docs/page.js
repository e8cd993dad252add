// Draws openapi.json. What it says becomes text, never markup; the key is read when it is sent.

const BASE = new URL(".", location.href);
const JSON_TYPE = "application/json";
const $ = (id) => document.getElementById(id);

function el(tag, traits, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(traits)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else made.setAttribute(name, value);
  }
  made.append(...children.flat(3));
  return made;
}

const code = (text) => [el("code", {}, text)];
const prose = (text = "") =>
  text.split(/`([^`]+)`/).flatMap((part, at) => (at % 2 ? code(part) : part || []));

function table(heads, rows, caption = []) {
  if (!rows.length) return el("p", { class: "note" }, caption);
  const used = (_, at) => rows.some((row) => row[at].length);
  const line = (tag, cells) => el("tr", {}, cells.map((cell) => el(tag, {}, cell)).filter(used));
  const body = el("tbody", {}, rows.map((row) => line("td", row)));
  const whole = [el("caption", {}, caption), el("thead", {}, line("th", heads)), body];
  return el("div", { class: "wide" }, el("table", {}, whole));
}

// Shapes
const found = (node) => node.$ref?.split("/").slice(1).reduce((at, step) => at[step], api) ?? node;

function kind(schema) {
  const { minimum: low, maximum: high, additionalProperties: other } = schema;
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  const only = schema.enum ?? (schema.const ? [schema.const] : []);
  if (only.length) return only.map((one) => `"${one}"`).join(" or ");
  if (schema.items) return `list of ${kind(schema.items)}`;
  if (other?.constructor === Object) return `map to ${kind(other)}`;
  const range = (low === undefined ? "" : ` from ${low}`) + (high ? ` to ${high}` : "");
  return [schema.type ?? "anything"].flat().join(" or ") + range;
}

function fields(schema, above = "", depth = 0) {
  const here = found(schema);
  const within = (here.anyOf ?? []).flatMap((one) => fields(one, above, depth));
  if (here.items) within.push(...fields(here.items, `${above}[]`, depth));
  const own = Object.entries((depth < 5 && here.properties) || {});
  return within.concat(...own.map(([name, field]) => {
    const path = above ? `${above}.${name}` : name;
    const needed = here.required?.includes(name) ? "yes" : "";
    const row = [code(path), kind(field), needed, prose(field.description)];
    return [row, ...fields(field, path, depth + 1)];
  }));
}

const shape = (schema, caption) =>
  table(["field", "type", "required", "what"], fields(schema), prose(caption));

function reply([status, { description, content = { "": { schema: {} } } }]) {
  return Object.entries(content).map(([media, { schema }]) => {
    const told = [`${status} ${description}`, media, schema.description];
    return shape(schema, told.filter(Boolean).join(", "));
  });
}

// Trying a route
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl({ method, url, open, body }) {
  const lines = [`curl ${method === "GET" ? "" : `-X ${method} `}${quoted(url.href)}`];
  if (!open) lines.push('-H "Authorization: Bearer $SLUICEGATE_ADMIN_KEY"');
  if (body !== undefined) lines.push(`-H 'Content-Type: ${JSON_TYPE}'`, `-d ${quoted(body)}`);
  return lines.join(" \\\n  ");
}

async function send({ method, url, open, body }, signal, told, shown) {
  const headers = body === undefined ? {} : { "content-type": JSON_TYPE };
  const key = $("key").value.trim();
  if (key && !open) headers.authorization = `Bearer ${key}`;
  const began = performance.now();
  const reply = await fetch(url, { method, headers, body, signal, redirect: "error" });
  shown.textContent = [...reply.headers, []].map((line) => `${line.join(": ")}\n`).join("");
  const part = shown.appendChild(el("span", {}));
  const reader = reply.body?.pipeThrough(new TextDecoderStream()).getReader();
  for (let next; reader && !(next = await reader.read()).done; ) part.append(next.value);
  if (reply.headers.get("content-type")?.startsWith(JSON_TYPE))
    part.textContent = JSON.stringify(JSON.parse(part.textContent), null, 2);
  told.textContent = `${reply.status} after ${Math.round(performance.now() - began)} ms`;
}

function trial(method, path, parameters, content, open) {
  const inputs = parameters.map(({ name, required }) =>
    el("input", { name, autocomplete: "off", ...(required && { required: "" }) }));
  const text = content && el("textarea", {}, JSON.stringify(content.example ?? {}, null, 2));
  const line = el("pre", { tabindex: "0", "aria-label": "The same with curl" });
  const shown = el("pre", { tabindex: "0", "aria-label": "The reply" });
  const told = el("span", { role: "status" });
  const go = el("button", {}, `Send ${method}`);
  let sending;

  function asked() {
    const url = new URL(BASE);
    let filled = path.slice(1);
    for (const { name, value } of inputs.filter((one) => one.value)) {
      const part = value.split("/").map(encodeURIComponent).join("/");
      if (path.includes(`{${name}}`)) filled = filled.replace(`{${name}}`, () => part);
      else url.searchParams.set(name, value);
    }
    url.pathname += filled;
    return { method, url, open, body: text?.value };
  }
  const input = () => { line.textContent = curl(asked()); };
  async function submit(event) {
    event.preventDefault();
    if (sending) return sending.abort();
    sending = new AbortController();
    [go.textContent, told.textContent, shown.textContent] = ["Stop", "waiting …", ""];
    const sent = send(asked(), sending.signal, told, shown);
    await sent.catch((error) => { told.textContent = error.message; });
    go.textContent = `Send ${method}`;
    sending = undefined;
  }
  async function click() {
    getSelection().selectAllChildren(line);
    await navigator.clipboard?.writeText(line.textContent).catch(() => {});
    told.textContent = navigator.clipboard ? "copied" : "selected; copy it with the keyboard";
  }
  input();
  return el("form", { submit, input },
    inputs.map((one) => el("label", {}, one.name + (one.required ? "" : " (optional)"), one)),
    text ? el("label", {}, "body", text) : [], line,
    el("div", {}, go, el("button", { type: "button", click }, "Copy curl"), told), shown);
}

// Routes
const signed = (method, path) =>
  [el("span", { class: `method ${method}` }, method), el("span", { class: "path" }, path)];
const examples = ([status, { content }]) => Object.entries(content?.[JSON_TYPE]?.examples ?? {})
  .map(([name, example]) => [status, code(name), prose(found(example).summary)]);

function route([method, path, told, shared]) {
  const open = told.security?.length === 0;
  const every = [...shared, ...(told.parameters ?? [])].map(found);
  const given = every.filter((one) => one.in !== "header");
  const content = told.requestBody?.content[JSON_TYPE];
  const replies = Object.entries(told.responses).map(([status, one]) => [status, found(one)]);
  const refusals = replies.flatMap(examples);
  const rows = every.filter((one) => one.name !== "x-request-id")
    .map((one) => [code(one.name), one.in, kind(one.schema), prose(one.description)]);
  return el("details", { id: told.operationId, class: `route ${method}` },
    el("summary", {}, signed(method, path), el("span", { class: "told" }, prose(told.summary)),
      el("span", { class: "chip" }, told["x-permission"] ?? "open")),
    el("div", { class: "inside" }, el("p", {}, prose(told.description)),
      rows.length ? [el("h3", {}, "Parameters"), table(["name", "in", "type", "what"], rows)] : [],
      content ? [el("h3", {}, "Body"), shape(content.schema, kind(content.schema))] : [],
      el("h3", {}, "Try it"), trial(method, path, given, content, open),
      el("h3", {}, "Replies"), replies.filter((one) => !examples(one).length).map(reply),
      el("details", {}, el("summary", {}, `${refusals.length} refusals`),
        table(["status", "code", "what"], refusals))));
}

function draw() {
  const schemes = Object.values(api.components.securitySchemes).map((one) =>
    [code(one.name ? `${one.name}: …` : "Authorization: Bearer …"), prose(one.description)]);
  const routes = Object.entries(api.paths).flatMap(([path, { parameters, ...methods }]) =>
    Object.entries(methods).map(([name, told]) => [name.toUpperCase(), path, told, parameters]));
  $("version").textContent = api.info.version;
  $("main").append(...api.info.description.split("\n\n").map((text) => el("p", {}, prose(text))),
    el("p", {}, "Base URL of OpenAI clients: ", code(new URL("v1", BASE).href)),
    table(["header", "what it holds"], schemes, "How to show a credential"));
  for (const { name, description } of api.tags) {
    const own = routes.filter(([, , told]) => told.tags.includes(name));
    const link = ([method, path, { operationId }]) =>
      el("li", {}, el("a", { href: `#${operationId}` }, signed(method, path)));
    $("main").append(el("section", { "aria-label": name },
      el("h2", {}, name), el("p", { class: "note" }, description), own.map(route)));
    $("contents").append(el("section", {}, el("h2", {}, name), el("ul", {}, own.map(link))));
  }
}

function filter() {
  const words = $("filter").value.toLowerCase().split(/\s+/);
  for (const one of document.querySelectorAll(".route")) {
    const text = one.querySelector("summary").textContent.toLowerCase();
    one.hidden = !words.every((word) => text.includes(word));
    document.querySelector(`nav [href="#${one.id}"]`).parentElement.hidden = one.hidden;
  }
  for (const part of document.querySelectorAll("section"))
    part.hidden = !part.querySelector(".route:not([hidden]), li:not([hidden])");
  $("found").textContent = `${document.querySelectorAll(".route:not([hidden])").length} routes`;
}

function follow() {
  const named = document.querySelector(`.route[id="${CSS.escape(location.hash.slice(1))}"]`);
  named?.setAttribute("open", "");
  named?.scrollIntoView();
}

const api = await fetch("openapi.json").then((told) => told.json()).catch((error) => ({ error }));
if (api.paths) draw();
else $("main").append(el("p", { role: "alert" }, `openapi.json cannot be read: ${api.error}`));
$("filter").addEventListener("input", filter);
addEventListener("hashchange", follow);
follow();
