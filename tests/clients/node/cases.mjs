// Runs the cases that the command line names and prints what they saw, as cases.py does.

export const MODEL = "smollm2-135m";

export const chat = (more = {}) => ({
  model: MODEL,
  messages: [{ role: "user", content: "Hello" }],
  max_tokens: 8,
  ...more,
});

const classesOf = (err) => {
  const names = [];
  for (let at = Object.getPrototypeOf(err); at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    names.push(at.constructor.name);
  }
  return names;
};

const told = (err) => ({
  classes: classesOf(err),
  status: err.status ?? null,
  code: String(err.code ?? null),
  param: err.param ?? null,
  type: err.type ?? null,
  request_id: err.requestID ?? null,
  headers: Object.fromEntries(err.headers ?? []),
  said: String(err.message),
});

export const run = async (cases) => {
  const seen = {};
  for (const name of process.argv.slice(2)) {
    const beganMs = performance.now();
    try {
      seen[name] = { saw: (await cases[name]()) ?? null };
    } catch (err) {
      seen[name] = { raised: told(err) };
    }
    seen[name].took_s = (performance.now() - beganMs) / 1000;
  }
  console.log(JSON.stringify(seen));
};
