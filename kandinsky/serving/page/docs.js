// Every route of openapi.json with what it takes, read from this server alone.
"use strict";

const place = document.getElementById("routes");

function kindOf(schema) {
  const kinds = (schema.anyOf || [schema]).map((one) => (one.enum ? one.enum.join(" | ") : one.type)).filter(Boolean);
  const kind = kinds.filter((one) => one !== "null").join(" | ");
  return schema.default === undefined || schema.default === null ? kind : `${kind}, default ${schema.default}`;
}

// What a route takes: [where, name, what it is] for each parameter and each field of its body.
function taken(route) {
  const found = (route.parameters || []).map((one) => [one.in, one.name, one.description || kindOf(one.schema)]);
  const kinds = route.requestBody ? Object.entries(route.requestBody.content) : [];
  const fields = new Map();
  for (const [, { schema }] of kinds) {
    for (const [name, field] of Object.entries(schema.properties)) fields.set(name, field.description);
  }
  for (const [name, said] of fields) found.push(["body", name, said]);
  if (kinds.length) found.push(["", "", kinds.map(([kind]) => kind).join(" or ")]);
  return found;
}

function show(path, method, route) {
  const node = document.getElementById("route").content.cloneNode(true).firstElementChild;
  node.querySelector("b").textContent = method.toUpperCase();
  node.querySelector("code").textContent = path;
  node.querySelector("span").textContent = (route.description || "").split("\n")[0];
  const rows = taken(route);
  for (const row of rows.length ? rows : [["", "", "takes nothing"]]) {
    const line = node.querySelector("table").insertRow();
    for (const text of row) line.insertCell().textContent = text;
  }
  place.append(node);
}

async function start() {
  try {
    const { paths } = await (await fetch("openapi.json")).json();
    for (const [path, methods] of Object.entries(paths)) {
      for (const [method, route] of Object.entries(methods)) show(path, method, route);
    }
  } catch (error) {
    place.textContent = `openapi.json cannot be read: ${error.message}`;
  }
}

start();
