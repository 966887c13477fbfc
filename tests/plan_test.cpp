// The plan of a run, as pure functions.
#include "harness/plan.hpp"

#include <cmath>
#include <map>
#include <set>

#include "harness/controls.hpp"
#include "tests/catch.hpp"
#include "tests/helpers.hpp"

using namespace echolab::harness;
using namespace std::chrono_literals;

namespace {

Plan plan_of(const std::vector<std::string>& names) {
  Plan plan;
  for (const std::string& name : names) plan.contenders.push_back({name, ""});
  return plan;
}

}  // namespace

TEST_CASE("the matrix is the product of its lists", "[plan]") {
  Plan plan = plan_of({"threads", "epoll"});
  CHECK(plan.expand().size() == 3 * 2 * 2);
  plan.rates = {0, 1000, 2000};  // open loop has no depths
  const std::vector<Cell> cells = plan.expand();
  CHECK(cells.size() == 3 * 2 * 2 + 2 * 3 * 2);
  std::set<std::string> names;
  for (const Cell& cell : cells) {
    names.insert(cell.shape.name());
    CHECK(cell.contenders == std::vector<std::size_t>{0, 1});
    if (cell.shape.rate > 0) CHECK(cell.shape.depth == kOpenLoopDepth);
  }
  CHECK(names.size() == cells.size());
  CHECK(names.count("c64/s4096/d16") == 1);
  CHECK(names.count("c64/s4096/r2000") == 1);
}

TEST_CASE("the default plan is what the project promises", "[plan]") {
  Plan plan = plan_of(default_backends());
  CHECK(plan.contenders.size() == 7);
  for (const Control& control : controls()) plan.contenders.push_back({control.name, ""});
  plan.few_controls = true;
  plan.add_copy();
  CHECK(plan.contenders.size() == 10);
  CHECK(plan.slices >= 64);
  CHECK(plan.blocks >= 8);
  CHECK(plan.slice == 10ms);
  CHECK(plan.baseline == "epoll");
  CHECK(estimated_time(plan, plan.expand()) < time_for_more_blocks(plan, plan.expand()));
  CHECK(time_for_more_blocks(plan, plan.expand()) < 178s);
  CHECK(most_time(plan, plan.expand()) < 270s);
  plan.quick = true;
  plan.blocks = 1;
  plan.slices = 25;
  plan.sizes = {64};
  CHECK(estimated_time(plan, plan.expand()) < 30s);
  CHECK(most_time(plan, plan.expand()) < 80s);
  plan.cap = 5s;
  CHECK(most_time(plan, plan.expand()) == 5s);  // starting and stopping may take a little more
  CHECK(time_for_more_blocks(plan, plan.expand()) == 5s);
}

TEST_CASE("raw controls are in the cells where they are asked for", "[plan][controls]") {
  Plan plan = plan_of({"epoll", "raw-epoll", "threads"});
  for (const Cell& cell : plan.expand()) CHECK(cell.contenders.size() == 3);
  CHECK(plan.contenders[1].control());
  CHECK_FALSE(plan.contenders[1].counts());
  CHECK(Contender{"raw-epoll (A/A)", ""}.control());
  CHECK_FALSE(plan.contenders[0].control());
  CHECK_FALSE(Contender{"raw-epoll", "raw-epoll {port}"}.control());  // somebody else's
  plan.few_controls = true;
  plan.rates = {0, 20'000};
  std::set<std::string> with;
  for (const Cell& cell : plan.expand()) {
    if (cell.contenders.size() == 3) with.insert(cell.shape.name());
  }
  CHECK(with == std::set<std::string>{"c1/s64/d1", "c64/s64/d1"});
}

TEST_CASE("shares of the lowest peak become rates when it is known", "[plan]") {
  Plan plan = plan_of({"epoll", "threads"});
  plan.connections = {1, 64};
  plan.sizes = {64};
  plan.rates.clear();
  plan.shares = {0.25, 0.5};
  REQUIRE(plan.expand().size() == 4);
  CHECK(plan.expand()[1].shape.name() == "c64/s64/r25%");
  plan.calibrated = true;
  plan.peaks = {
      {64, 64, "epoll", 100'000}, {64, 64, "threads", 80'000}, {64, 64, "generator", 9e5}};
  const std::vector<Cell> cells = plan.expand();
  REQUIRE(cells.size() == 2);  // nothing is known of one connection
  CHECK(cells[0].shape == CellShape{64, 64, kOpenLoopDepth, 20'000, 0});
  CHECK(cells[1].shape.rate == 40'000);
  plan.peaks[2].rate = 40'000;  // what the generator cannot do is no rate
  CHECK(plan.expand()[1].shape.rate == 20'000);
  plan.peaks = {{64, 64, "generator", 9e5}};
  CHECK(plan.expand().empty());
  plan.shares = {1.5};
  CHECK_THROWS_AS(plan.expand(), std::invalid_argument);
}

TEST_CASE("a filter takes matching rows and their baseline", "[plan]") {
  Plan plan = plan_of({"threads", "epoll", "epoll:lt", "libuv"});
  plan.filter = "^libuv/c64/.*/d1$";
  const std::vector<Cell> cells = plan.expand();
  REQUIRE(cells.size() == 2);
  for (const Cell& cell : cells) {
    CHECK(cell.shape.connections == 64);
    CHECK(cell.contenders == std::vector<std::size_t>{1, 3});
  }
  plan.filter = "no such row";
  CHECK(contains(error_of([&] { (void)plan.expand(); }), "matches no cell"));
  plan.filter = "(";
  CHECK(contains(error_of([&] { (void)plan.expand(); }), "regular expression"));
}

TEST_CASE("a plan that cannot be meant is refused in one line", "[plan]") {
  Plan plan = plan_of({"epoll", "threads"});
  const auto refused = [&](const std::string& part) {
    const std::string line = error_of([&] { (void)plan.expand(); });
    INFO(line);
    CHECK(contains(line, part));
    CHECK_FALSE(contains(line, "\n"));
  };
  SECTION("size 0") {
    plan.sizes = {0};
    refused("sizes: 0");
  }
  SECTION("no connections") {
    plan.connections = {0};
    refused("connections: 0");
  }
  SECTION("the same twice") {
    plan.depths = {1, 16, 1};
    refused("twice");
  }
  SECTION("a rate that is no number") {
    plan.rates = {std::nan("")};
    refused("rates");
  }
  SECTION("a rate that leaves slices empty") {
    plan.rates = {0, 10};
    refused("use a --slice of 500 ms or more, or a rate of 500/s or more");
    plan.rates = {0.1};  // no slice is long enough
    refused("use a rate of 500/s or more");
  }
  SECTION("no slices") {
    plan.slices = 0;
    refused("slices");
  }
  SECTION("a slice too short to hold a request") {
    plan.slice = 10us;
    refused("slice");
  }
  SECTION("a baseline that nobody is") {
    plan.baseline = "libuv";
    refused("--baseline");
  }
  SECTION("the same backend twice") {
    plan.contenders.push_back({"epoll", ""});
    refused("twice");
  }
  SECTION("a server without a port") {
    plan.contenders.push_back({"other", "other-server"});
    refused("{port}");
  }
  SECTION("names that become the same file") {
    plan.contenders.push_back({"a:b", "x {port}"});
    plan.contenders.push_back({"a-b", "x {port}"});
    refused("file names");
  }
}

TEST_CASE("a round has every contender once, in orders that a seed repeats", "[plan]") {
  const std::vector<std::size_t> contenders{0, 2, 3, 5, 6, 7, 9};
  std::mt19937_64 one = cell_rng(42, 3), same = cell_rng(42, 3), other = cell_rng(42, 4);
  bool differs = false;
  std::map<std::pair<std::size_t, std::size_t>, int> places;
  constexpr int kRounds = 7000;
  for (int round = 0; round < kRounds; ++round) {
    const std::vector<std::size_t> order = round_order(contenders, one);
    CHECK(order == round_order(contenders, same));
    differs = differs || order != round_order(contenders, other);
    CHECK(std::set<std::size_t>(order.begin(), order.end()).size() == contenders.size());
    for (std::size_t i = 0; i < order.size(); ++i) ++places[{order[i], i}];
  }
  CHECK(differs);
  CHECK(places.size() == 49);  // everyone has been everywhere,
  for (const auto& place : places) {
    CHECK(std::abs(place.second - kRounds / 7) < 200);  // about equally often (6.8 sigma)
  }
}

TEST_CASE("the descriptors of the largest cell are counted", "[plan]") {
  Plan plan = plan_of({"epoll", "threads"});
  const std::size_t needed = descriptors_needed(plan.expand());
  CHECK(needed > 2000);
  CHECK(needed < 2200);
}

TEST_CASE("a pool that is smaller than the cell is known before it starts", "[plan]") {
  const auto why = [](const std::string& name, unsigned connections) {
    return impossible({name, ""}, {connections, 64, 1, 0});
  };
  CHECK(why("threads:pool=4", 4).empty());
  CHECK(contains(why("threads:pool=4", 5), "cannot serve 5 connections at a time: it has 4"));
  CHECK(why("threads", 1000).empty());
  CHECK(why("epoll", 1000).empty());
  CHECK(why("threads:pool=x", 1000).empty());  // the server will say
  CHECK(impossible({"threads:pool=4", "mine {port}"}, {1000, 64, 1, 0}).empty());
}
